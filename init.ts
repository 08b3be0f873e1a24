// After Kubernetes' build/pause/linux/pause.c, Copyright 2016 The Kubernetes Authors, Apache-2.0 (see NOTICE).
import { NULL, SA_NOCLDSTOP, SIGCHLD, SIGINT, SIGTERM, WNOHANG } from "#ffi/constants.ts";
import type { Libc, SignalSafe } from "#ffi/libc.ts";
import { start } from "#ffi/start.ts";
import { version as VERSION } from "./package.json" with { type: "json" };

function sigdown({ _exit, psignal }: SignalSafe, signo: number): void {
  psignal(signo, "Shutting down, got signal");
  _exit(0); // exit(3) is not async-signal-safe
}

function sigreap({ waitpid }: SignalSafe): void {
  while (waitpid(-1, NULL, WNOHANG) > 0);
}

function main({ argv, fprintf, getpid, pause, printf, sigaction, stderr, strcasecmp }: Libc): number {
  if (argv.some((argument) => strcasecmp(argument, "-v") === 0)) {
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

start(main);
