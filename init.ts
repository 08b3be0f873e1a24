import {
  _exit,
  dprintf,
  getpid,
  NULL,
  pause,
  SA_NOCLDSTOP,
  SIGCHLD,
  SIGINT,
  SIGTERM,
  STDERR_FILENO,
  STDOUT_FILENO,
  WNOHANG,
  waitpid,
} from "./ffi/libc.ts";
import { call, forever, handler, psignal, whilePositive } from "./ffi/routine.ts";
import { atRest, enter } from "./ffi/runtime.ts";
import { sigaction } from "./ffi/sigaction.ts";
import { start } from "./ffi/start.ts";
import { version as VERSION } from "./package.json" with { type: "json" };

const sigdown = handler([SIGINT, SIGTERM], (signo) => [
  psignal(signo, "Shutting down, got signal"),
  call(_exit, 0), // exit(3) would run Bun's atexit handlers and is not async-signal-safe
]);

const sigreap = handler([SIGCHLD], () => [whilePositive(call(waitpid, -1, NULL, WNOHANG))]);

const loop = atRest(forever(call(pause)));

function main(argv: readonly string[]): number {
  if (argv.includes("-v") || argv.includes("-V")) {
    dprintf(STDOUT_FILENO, `init.ts ${VERSION}\n`);
    return 0;
  }

  if (getpid() !== 1)
    // Not an error: pause is also used outside of infra containers.
    dprintf(STDERR_FILENO, "Warning: pause should be the first process\n");

  if (sigaction(SIGINT, { sa_handler: sigdown }, NULL) < 0) return 1;
  if (sigaction(SIGTERM, { sa_handler: sigdown }, NULL) < 0) return 2;
  if (sigaction(SIGCHLD, { sa_handler: sigreap, sa_flags: SA_NOCLDSTOP }, NULL) < 0) return 3;

  enter(loop);
  dprintf(STDERR_FILENO, "Error: infinite loop terminated\n");
  return 42;
}

start(main);
