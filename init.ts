import { NULL, SA_NOCLDSTOP, SIGCHLD, SIGINT, SIGTERM, WNOHANG } from "#ffi/constants.ts";
import { _exit, handler, type Libc, psignal, waitpid, whilePositive } from "#ffi/libc.ts";
import { start } from "#ffi/start.ts";
import { version as VERSION } from "./package.json" with { type: "json" };

const sigdown = handler([SIGINT, SIGTERM], (signo) => [
  psignal(signo, "Shutting down, got signal"),
  _exit(0), // exit(3) is not async-signal-safe
]);

const sigreap = handler([SIGCHLD], () => [whilePositive(waitpid(-1, NULL, WNOHANG))]);

function main({ argv, fprintf, getpid, pause, printf, sigaction, stderr }: Libc): number {
  if (argv.includes("-v") || argv.includes("-V")) {
    printf(`init.ts ${VERSION}\n`);
    return 0;
  }

  if (getpid() !== 1)
    // Not an error: pause is also used outside of infra containers.
    fprintf(stderr, "Warning: pause should be the first process\n");

  if (sigaction(SIGINT, { sa_handler: sigdown }, NULL) < 0) return 1;
  if (sigaction(SIGTERM, { sa_handler: sigdown }, NULL) < 0) return 2;
  if (sigaction(SIGCHLD, { sa_handler: sigreap, sa_flags: SA_NOCLDSTOP }, NULL) < 0) return 3;

  for (;;) pause();
  // biome-ignore lint/correctness/noUnreachable: pause.c ends with these two lines, and cannot reach them either
  fprintf(stderr, "Error: infinite loop terminated\n");
  return 42;
}

start(main, { sigdown, sigreap });
