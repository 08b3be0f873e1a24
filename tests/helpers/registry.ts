/**
 * A registry of images on this machine's loopback: Debian's docker-registry.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "./process.ts";

export interface Registry extends AsyncDisposable {
  /** HOST:PORT. It has no TLS; docker and cosign take that from loopback, others have to be told. */
  readonly name: string;
}

/** Starts one that keeps its images in this folder, or only has them: it takes no new ones then. */
export async function startRegistry(folder: string, isReadOnly = false): Promise<Registry> {
  const maintenance = `maintenance: { readonly: { enabled: ${isReadOnly} } }`;
  const storage = `{ filesystem: { rootdirectory: ${folder}/registry }, ${maintenance} }`;
  const configuration = join(folder, "registry.yml");
  writeFileSync(configuration, `version: 0.1\nstorage: ${storage}\nhttp: { addr: 127.0.0.1:0 }\n`);
  // Its log tells the port: a new file, because an older one would have an older port.
  const log = join(folder, "registry.log");
  writeFileSync(log, "");
  const daemon = Bun.spawn(["docker-registry", "serve", configuration], {
    stdio: ["ignore", "ignore", Bun.file(log)],
  });
  let name = "";
  await until("the registry listens", () => {
    name = /listening on (127\.0\.0\.1:\d+)"/.exec(readFileSync(log, "utf8"))?.[1] ?? "";
    return name !== "" || daemon.exitCode !== null;
  });
  if (name === "") throw new Error(readFileSync(log, "utf8"));
  return {
    name,
    async [Symbol.asyncDispose]() {
      daemon.kill("SIGTERM");
      await daemon.exited;
    },
  };
}
