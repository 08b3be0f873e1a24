/*
 * A container of a soak: container COUNTS SEED MILLISECONDS. It makes families whose parents do not wait for all their
 * children, at a rate that changes, sends PID 1 every signal but the two that end it, and leaves by an exit or a
 * signal. Only who has counted itself is killed, so the counts are exact: forks less waits are PID 1's orphans.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The file COUNTS, which all containers share: 8 bytes each. */
static struct {
  atomic_ulong forks, waits, signals;
} *counts;

static unsigned short state[3];

static int below(int limit) { return (int)(nrand48(state) % limit); }

/* fork(2), with other random numbers to come in the child. */
static pid_t make(void) {
  pid_t pid;
  while ((pid = fork()) < 0) usleep(1000);
  state[1] += 1;
  if (pid == 0) state[2] ^= (unsigned short)getpid(), counts->forks++;
  return pid;
}

static void wait_for(pid_t pid) {
  if (waitpid(pid, NULL, 0) > 0) counts->waits++;
}

static void die(void) {
  static const int deadly[] = {SIGHUP, SIGABRT, SIGFPE, SIGKILL, SIGSEGV, SIGPIPE, SIGTERM};
  if (below(2)) raise(deadly[below(sizeof deadly / sizeof *deadly)]);
  _exit(10 + below(100)); /* 1, 2 and from 125 on are failures to start */
}

static void child(void) {
  int kind = below(8);
  if (kind == 0) setsid();
  if (kind == 1) usleep(below(200000));
  if (kind == 2 && make() == 0) usleep(below(20000)), die();
  if (kind == 3) {
    /* Stopped, and then continued or killed by its own child, an orphan too by then. */
    if (make() == 0) {
      for (pid_t parent; usleep(below(5000)), (parent = getppid()) != 1;) kill(parent, below(2) ? SIGCONT : SIGKILL);
      die();
    }
    raise(SIGSTOP);
  }
  die();
}

static void family(void) {
  for (int size = below(16) + 1; size > 0; size--) {
    pid_t pid = make();
    if (pid == 0) child();
    if (below(4) == 0) wait_for(pid);
  }
  die();
}

static void signal_pid_1(void) {
  int signo = below(SIGRTMAX) + 1;
  if (signo != SIGINT && signo != SIGTERM && kill(1, signo) == 0) counts->signals++;
}

static long milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  int fd = open(argv[1], O_RDWR);
  counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (counts == MAP_FAILED) return 1;
  state[0] = (unsigned short)atoi(argv[2]), state[1] = (unsigned short)(atoi(argv[2]) >> 16);
  int pace = 0;
  for (long end = milliseconds() + atol(argv[3]); milliseconds() < end;) {
    pid_t pid = make();
    if (pid == 0) family();
    if (below(4) == 0) wait_for(pid);
    if (below(4) == 0) signal_pid_1();
    if (below(20) == 0) pace = below(4) * below(10000);
    usleep(pace);
  }
  if (below(2)) die();
  for (pid_t pid; (pid = wait(NULL)) > 0;) counts->waits++;
  return 0;
}
