/**
 * The images under test, of `npm run image`, and what image/README.md says of them.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { images as contents, type Kind } from "../../image/contents.ts";
import { must } from "./process.ts";
import { dist, freestanding, hosted, type Program, root } from "./programs.ts";

export interface Image {
  readonly program: Program;
  /** An OCI archive. */
  readonly archive: string;
  /** What the archive calls it. */
  readonly name: string;
}

export const images: readonly Image[] = [hosted, freestanding].map((program) => {
  const { archive, reference } = contents[program.name as Kind];
  return { program, archive: join(dist, archive), name: reference };
});

/** Builds them, once in a run of the tests: each of their files has its own modules, but the global object is one. */
export function buildImages(): void {
  if (Reflect.get(globalThis, "imagesAreBuilt")) return;
  must("npm", "--prefix", root, "run", "-s", "image");
  Reflect.set(globalThis, "imagesAreBuilt", true);
}

/** The commands under a heading of a text, which are for the freestanding image, for an image. */
export function commands(heading: string, kind: Kind, file = "image/README.md"): string {
  const text = readFileSync(join(root, file), "utf8");
  const section = text.split(/^##+ /m).find((one) => one.startsWith(`${heading}\n`)) ?? "";
  const lines = section.split("\n").filter((line) => line.startsWith("    "));
  if (lines.length === 0) throw new Error(`${file} has no commands under "${heading}"`);
  return lines.join("\n").replaceAll("-freestanding", kind === "hosted" ? "" : "-freestanding");
}
