/**
 * A program as routines of system calls: main first, then the handlers, the restorer and texts.
 */
import type { Part, Step, Value } from "../assembler/routine.ts";
import { describeSignal, WNOHANG } from "../constants.ts";
import type { Call, End, Installed } from "../explore.ts";
import { ascii } from "../libc.ts";
import { lower, type Target } from "../lower.ts";
import type { Architecture, SystemCall } from "./architectures.ts";
import type { Recorded } from "./record.ts";
import type { Source } from "./world.ts";

/** linux/signal.h: sa_restorer is set. */
const SA_RESTORER = 0x04000000;
/** sizeof(sigset_t) of the kernel, in bytes. */
const SIZEOF_SIGSET = 8;
/** linux/prctl.h and linux/sched/coredump.h. */
const PR_SET_DUMPABLE = 4;
const SUID_DUMP_DISABLE = 0;

const MAIN = "main";
/** The name that debuggers know such a routine by (gdb's amd64-linux-tdep.c), so that they see the signal's frame. */
const RESTORER = "__restore_rt";

const SEALED = "not in pause.c: where PID 1 is not root, no other process may look into it";
const REAPED = "not in pause.c: what died before SIGCHLD was caught is reaped at once";
const RETURNED = "where a handler returns to, which libc would bring";

/** What the labels of texts begin with. */
const TEXT = "text";

/**
 * The names of handlers in the executable: "sigreap", or "sigdown.SIGTERM" where it does not do the same for all signals,
 * or "sigdown.SIGTERM-2" where that is not one either. With a dot and a number end the labels of places within routines.
 */
function namesOf(handlers: readonly Installed[]): ReadonlyMap<Installed, string> {
  const names = new Map<Installed, string>();
  const taken = new Set([MAIN, RESTORER, TEXT]);
  for (const handler of handlers) {
    const isOne = handlers.filter(({ name }) => name === handler.name).length === 1;
    const signal = describeSignal(handler.signo)?.name ?? `SIG${handler.signo}`;
    const plain = `${handler.name.replace(/\W/g, "_") || "handler"}${isOne ? "" : `.${signal}`}`;
    let name = plain;
    for (let count = 2; taken.has(name); count++) name = `${plain}-${count}`;
    taken.add(name);
    names.set(handler, name);
  }
  return names;
}

/** What the calls of a program are on one architecture. */
class Linux implements Target {
  /** Texts, each once. */
  readonly texts: Part[] = [];
  readonly #architecture: Architecture;
  readonly #names: ReadonlyMap<Installed, string>;
  readonly #source: Source;

  constructor(architecture: Architecture, names: ReadonlyMap<Installed, string>, source: Source) {
    this.#architecture = architecture;
    this.#names = names;
    this.#source = source;
  }

  reasonOf(at: Error | undefined): string {
    const place = this.#source.placeOf(at);
    return place === undefined ? "" : `${place}  ${this.#source.textOf(place)}`;
  }

  systemCall(name: SystemCall, values: readonly Value[], reason: string): Step {
    return { systemCall: this.#architecture.systemCalls[name], values, reason };
  }

  call(call: Call, label: string, reason: string): readonly Step[] {
    switch (call.word) {
      case "argument":
        return []; // the branch looks for it
      case "getpid":
        return [this.systemCall("getpid", [], reason)];
      case "pause":
        return this.#rest(call.reaps, label, reason);
      case "sigaction": {
        const { signo, handler, flags } = call;
        const act = this.#structSigaction(
          typeof handler === "number" ? handler : { label: this.#names.get(handler) ?? handler.name },
          flags,
        );
        return [this.systemCall("rt_sigaction", [signo, act, 0, SIZEOF_SIGSET], reason)];
      }
      case "waitpid":
        return [this.systemCall("wait4", [call.pid, 0, call.options, 0], reason)];
      case "write": {
        const bytes = ascii(call.text);
        return [this.systemCall("write", [call.fd, { label: this.#text(bytes) }, bytes.length], reason)];
      }
    }
  }

  end(end: End, reason: string): readonly Step[] {
    if ("returns" in end) return [{ return: true, reason: "the end of the handler" }];
    return [this.systemCall("exit_group", [end.exit], reason === "" ? `main returns ${end.exit}` : reason)];
  }

  /** Where main stays. */
  #rest(reaps: boolean, label: string, reason: string): readonly Step[] {
    const [dumpable, reap, pause] = [`${label}.dumpable`, `${label}.reap`, `${label}.pause`];
    const [number, values] = this.#architecture.pause;
    const reaper: Step[] = [
      { label: reap },
      this.systemCall("wait4", [-1, 0, WNOHANG, 0], REAPED),
      { jump: reap, when: "positive", reason: REAPED },
    ];
    return [
      this.systemCall("geteuid", [], SEALED),
      { jump: dumpable, when: 0, reason: SEALED },
      this.systemCall("prctl", [PR_SET_DUMPABLE, SUID_DUMP_DISABLE], SEALED),
      { label: dumpable },
      ...(reaps ? reaper : []),
      { label: pause },
      { systemCall: number, values, reason },
      { jump: pause, reason },
    ];
  }

  /** The label of a text. */
  #text(data: Uint8Array): string {
    const known = this.texts.find((part) => "data" in part && Bun.deepEquals(part.data, data));
    if (known !== undefined) return known.label;
    const label = `${TEXT}.${this.texts.length + 1}`;
    this.texts.push({ label, data });
    return label;
  }

  /** The struct that the kernel takes: not libc's. */
  #structSigaction(handler: Value & (number | { label: string }), flags: number): Value {
    const { sigaction, hasRestorer, encoder } = this.#architecture;
    // An int in C: its sign says nothing.
    const unsigned = (hasRestorer ? flags | SA_RESTORER : flags) >>> 0;
    const fields = {
      sa_handler: [handler],
      sa_flags: [unsigned],
      sa_restorer: [hasRestorer ? { label: RESTORER } : 0],
      sa_mask: Array<number>(SIZEOF_SIGSET / encoder.wordSize).fill(0),
    };
    return { words: sigaction.flatMap((field) => fields[field]) };
  }
}

/** The parts of the program, main first. */
export function partsOf({ main, handlers }: Recorded, architecture: Architecture, source: Source): Part[] {
  const names = namesOf(handlers);
  const linux = new Linux(architecture, names, source);
  const routine = (label: string, root: Installed["root"]): Part => ({
    label,
    steps: lower(root, label, linux),
  });
  const routines = [
    routine(MAIN, main),
    ...handlers.map((one) => routine(names.get(one) ?? one.name, one.root)),
  ];
  if (architecture.hasRestorer)
    routines.push({ label: RESTORER, steps: [linux.systemCall("rt_sigreturn", [], RETURNED)] });
  return [...routines, ...linux.texts];
}
