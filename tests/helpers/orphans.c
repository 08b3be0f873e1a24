/*
 * Makes orphans: orphans MAKERS EACH. Every maker makes EACH of them, in families whose parent does not wait for
 * its children, in turn in these orders of death: a child that is a zombie before it is an orphan, one that ends
 * after its parent, one that is stopped by then and continued later, one that is killed. Ends when all are made.
 */
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FAMILY = 50 };

static pid_t make(void) {
  pid_t pid;
  while ((pid = fork()) < 0) sched_yield();
  return pid;
}

/* All children of a parent that ends are told so at once: that is a burst. */
static void wait_to_be_an_orphan(void) {
  sigset_t told;
  sigemptyset(&told), sigaddset(&told, SIGUSR1);
  sigprocmask(SIG_BLOCK, &told, NULL);
  prctl(PR_SET_PDEATHSIG, SIGUSR1);
  while (getppid() != 1) sigwaitinfo(&told, NULL);
}

/* Returns in the parent only, with the child's process ID. */
static pid_t child(int order, pid_t other) {
  pid_t pid = make();
  if (pid != 0) return pid;
  if (order == 1) wait_to_be_an_orphan();
  if (order == 2 || order == 4) pause();
  if (order == 3 || order == 5) {
    wait_to_be_an_orphan();
    if (order == 3) kill(other, SIGCONT);
    kill(other, order == 3 ? SIGTERM : SIGKILL);
  }
  _exit(order);
}

static void family(int size) {
  pid_t pid = 0;
  for (int made = 0; made < size; made++) {
    /* 3 and 5 are those who end 2 and 4; without room for both, 0 ends by itself. */
    int order = made % 6;
    if ((order == 2 || order == 4) && made + 1 == size) order = 0;
    pid = child(order, pid);
    if (order == 0) waitid(P_PID, (id_t)pid, NULL, WEXITED | WNOWAIT);
    if (order == 2) kill(pid, SIGSTOP), waitid(P_PID, (id_t)pid, NULL, WSTOPPED | WNOWAIT);
  }
  _exit(0);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  for (int maker = atoi(argv[1]); maker > 0; maker--) {
    if (make() != 0) continue;
    for (int left = atoi(argv[2]); left > 0; left -= FAMILY) {
      pid_t parent = make();
      if (parent == 0) family(left < FAMILY ? left : FAMILY);
      waitpid(parent, NULL, 0);
    }
    _exit(0);
  }
  while (wait(NULL) > 0) {
  }
  return 0;
}
