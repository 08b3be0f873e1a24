/*
 * Becomes a program in surroundings that no shell makes: surroundings WHICH PROGRAM [ARGUMENT]...
 * WHICH is "mdwe" (no memory becomes executable that was not mapped so) or "dead-child" (one is waiting to be reaped).
 */
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PR_SET_MDWE /* Linux 6.3 */
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1UL
#endif

int main(int argc, char **argv) {
  if (argc < 3) return 124;
  if (strcmp(argv[1], "mdwe") == 0 && prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0UL, 0UL, 0UL) < 0) return 125;
  if (strcmp(argv[1], "dead-child") == 0) {
    if (fork() == 0) _exit(0);
    waitid(P_ALL, 0, NULL, WEXITED | WNOWAIT);
  }
  execvp(argv[2], argv + 2);
  return 126;
}
