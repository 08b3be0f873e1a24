/*
 * Becomes a program in surroundings that no shell makes: surroundings WHICH PROGRAM [ARGUMENT]...
 * WHICH is "mdwe" (no memory becomes executable that was not mapped so), "dead-child" (one is waiting to be reaped),
 * "eventpoll" (4 is one that watches 3, a pipe), "outside" (the root becomes $ROOT, the working directory stays),
 * "no-tsc" (the time-stamp counter may not be read) or "closed-pipe" (nobody reads what it writes).
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PR_SET_MDWE /* Linux 6.3 */
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1UL
#endif

static int eventpoll(void) {
  enum { PIPE = 3, EVENTPOLL = 4 };
  int ends[2], watching;
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x70617573};
  /* From high numbers, so that no copy overwrites what is still to be copied. */
  if (pipe(ends) < 0 || dup2(ends[0], 100) < 0 || dup2(ends[1], 101) < 0) return -1;
  if (close(ends[0]) < 0 || close(ends[1]) < 0 || (watching = epoll_create1(EPOLL_CLOEXEC)) < 0) return -1;
  if (dup2(watching, 102) < 0 || close(watching) < 0) return -1;
  if (dup2(100, PIPE) < 0 || dup2(102, EVENTPOLL) < 0) return -1;
  if (epoll_ctl(EVENTPOLL, EPOLL_CTL_ADD, PIPE, &event) < 0) return -1;
  return close(100) < 0 || close(102) < 0 ? -1 : 0;
}

static int closed_pipe(void) {
  int ends[2];
  if (signal(SIGPIPE, SIG_DFL) == SIG_ERR || pipe(ends) < 0 || close(ends[0]) < 0) return -1;
  return dup2(ends[1], STDOUT_FILENO) < 0 || dup2(ends[1], STDERR_FILENO) < 0 ? -1 : close(ends[1]);
}

int main(int argc, char **argv) {
  if (argc < 3) return 124;
  if (strcmp(argv[1], "mdwe") == 0 && prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0UL, 0UL, 0UL) < 0) return 125;
  if (strcmp(argv[1], "dead-child") == 0) {
    if (fork() == 0) _exit(0);
    waitid(P_ALL, 0, NULL, WEXITED | WNOWAIT);
  }
  if (strcmp(argv[1], "eventpoll") == 0 && eventpoll() < 0) return 125;
  if (strcmp(argv[1], "outside") == 0 && chroot(getenv("ROOT")) < 0) return 125;
  if (strcmp(argv[1], "no-tsc") == 0 && prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0UL, 0UL, 0UL) < 0) return 125;
  if (strcmp(argv[1], "closed-pipe") == 0 && closed_pipe() < 0) return 125;
  execvp(argv[2], argv + 2);
  return 126;
}
