/*
 * The reference of this project: what pause.c does, in C, to be built static with `cc -Os -static -s`.
 * After Kubernetes' build/pause/linux/pause.c, Copyright 2016 The Kubernetes Authors, Apache-2.0 (see NOTICE).
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>

static void down(int signo) {
  psignal(signo, "Shutting down, got signal");
  exit(0);
}

static void reap(int signo) {
  (void)signo;
  while (waitpid(-1, NULL, WNOHANG) > 0) {
  }
}

static int catch(int signo, void (*handler)(int), int flags) {
  struct sigaction act = {.sa_handler = handler, .sa_flags = flags};
  return sigaction(signo, &act, NULL);
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    if (strcasecmp(argv[i], "-v") == 0) {
      printf("pause.c %s\n", VERSION);
      return 0;
    }
  }
  if (getpid() != 1) fprintf(stderr, "Warning: pause should be the first process\n");
  if (catch(SIGINT, down, 0) < 0) return 1;
  if (catch(SIGTERM, down, 0) < 0) return 2;
  if (catch(SIGCHLD, reap, SA_NOCLDSTOP) < 0) return 3;
  for (;;) pause();
  fprintf(stderr, "Error: infinite loop terminated\n");
  return 42;
}
