/**
 * The images on their way through a registry: image/README.md's commands, as they stand there. Each test takes what the ones before it have done.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { images, kinds } from "../../image/contents.ts";
import { indexOf, sha256 } from "../../image/layout.ts";
import { allowInsecure, startRegistry } from "../helpers/daemons.ts";
import { DebianMachine, machineNeeds } from "../helpers/debian.ts";
import { needing } from "../helpers/expect.ts";
import { commands, IMAGES } from "../helpers/images.ts";
import { type Place, ThisMachine } from "../helpers/places.ts";
import { must } from "../helpers/process.ts";
import { dist, freestanding, hosted } from "../helpers/programs.ts";
import { untilAtRest } from "../helpers/rest.ts";
import { CONTAINERS_CONF, startContainerd } from "../helpers/runtimes.ts";

const TOOLS = {
  ...{ skopeo: "skopeo", podman: "podman", crun: "crun", runc: "runc", containerd: "containerd" },
  "docker-registry": "docker-registry",
  "/etc/containers/registries.conf.d": "golang-github-containers-common",
};

needing(...machineNeeds("trixie"), TOOLS, ...IMAGES).describe("registry", () => {
  const stack = new AsyncDisposableStack();
  let trixie: Place;
  let registry = "";
  /** Runs a script where the registry's name is known, and everything is as on a machine of its own. */
  let sh: (script: string) => string;

  beforeAll(async () => {
    const workshop = stack.use(await new ThisMachine().ready());
    trixie = stack.use(await DebianMachine.start("trixie"));
    const { folder } = workshop;
    const server = stack.use(await startRegistry(folder));
    registry = server.name;
    for (const place of [workshop, trixie]) {
      allowInsecure(place, server);
      symlinkSync(place.path(dist), join(place.folder, "dist"));
    }
    const { environment } = stack.use(await startContainerd(workshop, "containerd", {}));
    const store = `graphroot = "${folder}/podman-root"\nrunroot = "${folder}/podman-run"\n`;
    writeFileSync(join(folder, "storage.conf"), `[storage]\ndriver = "vfs"\n${store}`);
    writeFileSync(join(folder, "containers.conf"), `[engine]\n${CONTAINERS_CONF}`);
    const variables = {
      ...environment,
      REGISTRY: registry,
      CONTAINERS_CONF: join(folder, "containers.conf"),
      CONTAINERS_STORAGE_CONF: join(folder, "storage.conf"),
    };
    sh = (script) => must(...workshop.script(script, variables));
  });
  afterAll(() => stack.disposeAsync());

  for (const kind of kinds)
    describe(kind, () => {
      const { archive, architectures, reference, tag } = images[kind];
      /** The digest of the index in the archive. */
      const archived = () => indexOf(join(dist, archive)).digest;
      const names = (by: "tag" | "digest") =>
        `${registry}/pause${by === "tag" ? `:${tag}` : `@${archived()}`}`;
      /** containerd and podman have the archive's digest under a name. */
      const expectArchived = (name: string) => {
        const [, line] = sh(`ctr -n k8s.io images list name==${name}`).split("\n");
        expect(line?.split(/ +/)[2]).toBe(archived());
        const format = '{{.Digest}} {{join .RepoDigests " "}}';
        expect(sh(`podman image inspect --format '${format}' ${name}`)).toContain(archived());
      };
      const forget = () =>
        sh(`podman image rm --all --force
          ctr -n k8s.io images list -q | xargs --no-run-if-empty ctr -n k8s.io images rm --sync`);

      const expectPushed = (repository: string) => {
        const raw = sh(`skopeo inspect --raw docker://${repository}/pause:${tag}`);
        expect(`sha256:${sha256(raw)}`).toBe(archived());
      };

      test("pushed: the registry has the archive's index, byte for byte", () => {
        sh(commands("Push it to a registry", kind));
        expectPushed(registry);
      });

      test("pushed by trixie's skopeo: the same", () => {
        const repository = `${registry}/trixie`;
        must(...trixie.script(commands("Push it to a registry", kind), { REGISTRY: repository }));
        expectPushed(repository);
      });

      test.each([
        "tag",
        "digest",
      ] as const)("pulled by %s: same digest, this machine's platform", async (by) => {
        if (by === "tag") sh(`podman pull ${names(by)}; ctr -n k8s.io images pull ${names(by)}`);
        else sh(commands("Pin it by digest", kind));
        expectArchived(names(by));
        expect(sh(`podman run --rm --network=none ${names(by)} -v`)).toBe(hosted.version);
        expect(sh(`ctr -n k8s.io run --rm ${names(by)} version /pause -v`)).toBe(hosted.version);
        sh(`podman run --detach --name rests --network=none ${names(by)}`);
        const pid = Number(sh("podman inspect --format '{{.State.Pid}}' rests"));
        await untilAtRest({ pid }, kind === "hosted" ? hosted : freestanding);
        sh("podman stop --time 60 rests");
        expect(sh("podman inspect --format '{{.State.ExitCode}}' rests")).toBe("0\n");
        sh("podman rm rests");
        forget();
      });

      test("CRI-O's way: the archive goes into the storage that it shares with podman", () => {
        // README's command; its storage is podman's here, which storage.conf names.
        sh(`skopeo copy --quiet oci-archive:dist/${archive} containers-storage:${reference}`);
        expect(sh("podman images --format '{{.Repository}}:{{.Tag}}'")).toContain(reference);
        forget();
      });

      test("each platform is found under the one name", () => {
        for (const architecture of architectures) {
          sh(`podman pull --arch ${architecture} ${names("tag")}`);
          const found = sh(`podman image inspect --format '{{.Architecture}}' ${names("tag")}`);
          expect(found).toBe(`${architecture}\n`);
        }
        forget();
      });

      test("mirrored by an archive: same digest, under the registry's name", () => {
        sh(commands("Bring it to nodes without a registry", kind));
        expectArchived(names("tag"));
        expect(sh(`podman run --rm --pull=never --network=none ${names("tag")} -v`)).toBe(hosted.version);
        forget();
      });
    });
});
