/*
 * What programs do on this kernel, as text on its console. The kernel runs it: with rdinit=/pause the machine has no
 * other program, but for a qdisc that it does not know, which sysctl.net.core.default_qdisc=harness names, it calls
 * /sbin/modprobe (kernel/module/kmod.c). All that is printed is "|PROGRAM|CASE|WHAT|STDOUT|STDERR|". It ends with
 * SIGTERM to PID 1, and so does the machine.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { USER = 65535, SECONDS = 60 };

/* The program that is observed, and what it has written. */
static const char *program;
static int outputs[2];

static void print(const char *text) {
  for (; *text != 0; text++) {
    if (*text == '\n')
      fputs("\\n", stdout);
    else
      putchar(*text);
  }
}

/* One line of the report. */
static void say(const char *name, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  printf("|%s|%s|", program + 1, name);
  vprintf(format, arguments);
  va_end(arguments);
  for (int i = 0; i < 2; i++) {
    char text[4096] = "";
    if (outputs[i] > 0 && pread(outputs[i], text, sizeof text - 1, 0) < 0) strcpy(text, strerror(errno));
    putchar('|');
    print(text);
  }
  puts("|");
  fflush(stdout);
}

static _Noreturn void fail(const char *what, const char *why) {
  say("failed", "%s: %s", what, why);
  reboot(RB_AUTOBOOT);
  _exit(1);
}

static long must(long result, const char *what) {
  if (result < 0) fail(what, strerror(errno));
  return result;
}

#define UNTIL(condition)                                      \
  for (time_t start = time(NULL); !(condition); usleep(1000)) \
    if (time(NULL) - start > SECONDS) fail(#condition, "not within 60 s")

/* The text of a file, "" if there is none. */
static char *contents(const char *format, ...) {
  static char text[16384];
  char path[128];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(path, sizeof path, format, arguments);
  va_end(arguments);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t length = 0, count = 0;
  while (fd >= 0 && (count = read(fd, text + length, sizeof text - 1 - (size_t)length)) > 0) length += count;
  text[length] = 0;
  if (fd >= 0) close(fd);
  return text;
}

/* A number behind a name at the start of a line. */
static long number(const char *text, const char *name) {
  for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
    line += *line == '\n';
    if (strncmp(line, name, strlen(name)) == 0) return strtol(line + strlen(name), NULL, 10);
  }
  return 0;
}

/*
 * Whether it sleeps in pause(2), with its handlers in place, no signal waiting and nothing of its start left. One that
 * is about to end may sleep too, until its PID namespace is empty; but it has no memory any more.
 */
static int rests(pid_t pid) {
  static const char *const fields[] = {"State:\tS", "VmRSS:", "Threads:\t1\n", "SigPnd:\t0000000000000000",
                                       "ShdPnd:\t0000000000000000"};
  const char *text = contents("/proc/%d/status", pid);
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
    if (strstr(text, fields[i]) == NULL) return 0;
  if (strcmp(program, "/floor") == 0) return 1;
  if (strstr(text, "SigCgt:\t0000000000014002") == NULL) return 0;
  return strcmp(program, "/hosted") != 0 || strstr(contents("/proc/%d/maps", pid), program) == NULL;
}

/* Nothing but one process, if any, is its child. */
static int has_no_child_but(pid_t pid, pid_t child) {
  const char *children = contents("/proc/%d/task/%d/children", pid, pid);
  return *children == 0 || (atoi(children) == child && *(strchr(children, ' ') + 1) == 0);
}

static const char RESTS[] = "rests";

/* What becomes of a child after a signal, or after its start: it rests, is stopped, or how it ended. */
static const char *outcome(pid_t pid) {
  static char text[32];
  siginfo_t info = {.si_pid = 0};
  UNTIL(rests(pid) || (must(waitid(P_PID, (id_t)pid, &info, WEXITED | WSTOPPED | WNOHANG), "waitid"), info.si_pid != 0));
  if (info.si_pid == 0) return RESTS;
  if (info.si_code == CLD_STOPPED) return "stopped";
  snprintf(text, sizeof text, "%s %d", info.si_code == CLD_EXITED ? "exit" : "signal", info.si_status);
  return text;
}

/* Starts a child, in these new namespaces. */
static pid_t make(unsigned long long namespaces) {
  struct clone_args arguments = {.flags = namespaces, .exit_signal = SIGCHLD};
  fflush(stdout);
  return (pid_t)must(syscall(SYS_clone3, &arguments, sizeof arguments), "clone3");
}

static void become_user(void) {
  must(setgroups(0, NULL), "setgroups"), must(setgid(USER), "setgid"), must(setuid(USER), "setuid");
}

/* As PID 1 it has a /proc of its own. */
enum { PID1 = CLONE_NEWPID | CLONE_NEWNS };

/* Starts the program, in the namespaces of PID1 or none, with new outputs. */
static pid_t start(unsigned long long namespaces, void (*prepare)(void), const char *const argv[]) {
  for (int i = 0; i < 2; i++) {
    if (outputs[i] > 0) close(outputs[i]);
    outputs[i] = (int)must(memfd_create("output", MFD_CLOEXEC), "memfd_create");
  }
  pid_t pid = make(namespaces);
  if (pid != 0) return pid;
  if (namespaces != 0) must(mount("proc", "/proc", "proc", 0, NULL), "mount /proc");
  must(dup2(outputs[0], 1), "dup2"), must(dup2(outputs[1], 2), "dup2");
  if (prepare != NULL) prepare();
  execve(program, (char *const *)argv, (char *[]){NULL});
  _exit(127);
}

/* Starts the program without arguments, to its rest. */
static pid_t start_to_rest(unsigned long long namespaces, void (*prepare)(void)) {
  pid_t pid = start(namespaces, prepare, (const char *const[]){program, NULL});
  const char *is = outcome(pid);
  if (is != RESTS) say("failed", "does not rest: %s", is);
  return is == RESTS ? pid : 0;
}

/* Starts a child in the PID namespace of a process. */
static pid_t make_inside(pid_t pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/ns/pid", pid);
  int there = (int)must(open(path, O_RDONLY | O_CLOEXEC), path);
  int here = (int)must(open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC), "/proc/self/ns/pid");
  must(setns(there, CLONE_NEWPID), "setns");
  pid_t child = make(0);
  if (child != 0) must(setns(here, CLONE_NEWPID), "setns");
  close(there), close(here);
  return child;
}

static void end(pid_t pid, int signo, const char *name) {
  must(kill(pid, signo), "kill");
  say(name, "%s", outcome(pid));
}

static void arguments(void) {
  static const char *const cases[][6] = {{"-v"}, {"-V"}, {"--help", "x", "-v"}, {"-V", ""}, {"-vv", "v", "-", "--v", ""}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *argv[8] = {program};
    char name[64] = "arguments";
    for (int j = 0; cases[i][j] != NULL; j++) argv[j + 1] = cases[i][j], strcat(strcat(name, " "), cases[i][j]);
    pid_t pid = start(0, NULL, argv);
    const char *is = outcome(pid);
    if (is == RESTS)
      end(pid, SIGINT, name);
    else
      say(name, "%s", is);
  }
  pid_t pid = start(0, NULL, (const char *const[]){NULL});
  if (outcome(pid) == RESTS) end(pid, SIGTERM, "not even its name as an argument");
}

/* The signal for which sigaction(2) fails. */
static unsigned int refused;

static void refuse(void) {
  /* The half of a 64-bit argument that has the small numbers. */
  const unsigned int low = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0;
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigaction, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]) + low),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog code = {.len = sizeof filter / sizeof *filter, .filter = filter};
  must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &code), "seccomp");
}

static void refusals(void) {
  static const unsigned int signals[] = {SIGINT, SIGTERM, SIGCHLD};
  for (int i = 0; i < 3; i++) {
    char name[64];
    snprintf(name, sizeof name, "sigaction fails for signal %u", refused = signals[i]);
    say(name, "%s", outcome(start(0, refuse, (const char *const[]){program, NULL})));
  }
}

static void signals(const char *from, unsigned long long namespaces, int is_inside) {
  pid_t pid = 0;
  for (int signo = 1; signo <= SIGRTMAX; signo++) {
    if (pid == 0 && (pid = start_to_rest(namespaces, NULL)) == 0) return;
    pid_t sender = is_inside ? make_inside(pid) : 0;
    if (is_inside && sender == 0) _exit(kill(1, signo) < 0);
    if (sender == 0)
      must(kill(pid, signo), "kill");
    else
      must(waitpid(sender, NULL, 0), "waitpid");
    char name[64];
    snprintf(name, sizeof name, "signal %d %s", signo, from);
    const char *is = outcome(pid);
    say(name, "%s", is);
    if (strcmp(is, "stopped") == 0) {
      must(kill(pid, SIGCONT), "kill");
      say(strcat(name, ", continued"), "%s", is = outcome(pid));
    }
    if (is != RESTS) pid = 0;
  }
  if (pid != 0) end(pid, SIGKILL, from);
}

/* What /proc/PID/status says of signals, threads and rights. */
static void status(pid_t pid, const char *name) {
  static const char *const fields[] = {"State", "Threads", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "Uid",
                                       "Gid",   "CapEff",  "Seccomp"};
  char found[1024] = "";
  char *position;
  for (char *line = strtok_r(contents("/proc/%d/status", pid), "\n", &position); line != NULL;
       line = strtok_r(NULL, "\n", &position))
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
      if (strncmp(line, fields[i], strlen(fields[i])) == 0 && line[strlen(fields[i])] == ':')
        strcat(strcat(found, line), " ");
  for (char *tab; (tab = strchr(found, '\t')) != NULL;) *tab = ' ';
  say(name, "%s", found);
}

/* The general registers, as the kernel keeps them while the process is stopped in pause(2). */
static size_t registers(pid_t pid, unsigned long values[64]) {
  struct iovec vector = {values, 64 * sizeof *values};
  must(ptrace(PTRACE_SEIZE, pid, 0, 0), "PTRACE_SEIZE"), must(ptrace(PTRACE_INTERRUPT, pid, 0, 0), "PTRACE_INTERRUPT");
  must(waitpid(pid, NULL, __WALL), "waitpid");
  must(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &vector), "PTRACE_GETREGSET");
  must(ptrace(PTRACE_DETACH, pid, 0, 0), "PTRACE_DETACH");
  return vector.iov_len / sizeof *values;
}

/* How often it ran, and for how many ticks. */
static void activity(pid_t pid, long found[3]) {
  const char *text = contents("/proc/%d/status", pid);
  found[0] = number(text, "voluntary_ctxt_switches:");
  found[1] = number(text, "nonvoluntary_ctxt_switches:");
  long user = 0, kernel = 0;
  sscanf(strrchr(contents("/proc/%d/stat", pid), ')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld", &user,
         &kernel);
  found[2] = user + kernel;
}

/* Two thousand orphans of PID 1 in bursts, under a storm of SIGCHLD and SIGCONT. It is a child, or the machine's own. */
static void orphans(pid_t pid, const char *name) {
  unsigned long before[64], after[64];
  must(kill(pid, SIGCHLD), "kill");
  UNTIL(rests(pid));
  registers(pid, before);
  pid_t makers = pid == 1 ? make(0) : make_inside(pid);
  if (makers == 0) execl("/orphans", "orphans", "2", "1000", NULL), _exit(127);
  int ended = 0;
  do {
    must(kill(pid, SIGCHLD), "kill"), must(kill(pid, SIGCONT), "kill"), usleep(500);
  } while (must(waitpid(makers, &ended, WNOHANG), "waitpid") == 0);
  UNTIL(has_no_child_but(pid, pid == 1 ? getpid() : 0) && rests(pid));
  long earlier[3], later[3];
  activity(pid, earlier);
  /* That nothing happens has no end to wait for. */
  sleep(2);
  activity(pid, later);
  say(name, "makers: %d, all reaped; at rest: %ld, %ld switches, %ld ticks", ended, later[0] - earlier[0],
      later[1] - earlier[1], later[2] - earlier[2]);
  size_t count = registers(pid, after);
  for (size_t i = 0; i < count; i++) {
#ifdef __loongarch__
    /* $t0 to $t8 are the kernel's own in a system call: it does not save them (arch/loongarch/kernel/entry.S). */
    if (i >= 12 && i <= 20) continue;
#endif
    if (before[i] != after[i]) say(name, "register %zu of %zu: %lx, then %lx", i, count, before[i], after[i]);
  }
  UNTIL(rests(pid));
}

static void user(void) {
  pid_t pid = start_to_rest(PID1, become_user);
  if (pid == 0) return;
  status(pid, "user 65535 at rest");
  pid_t other = make(0);
  if (other == 0) become_user(), _exit(*contents("/proc/%d/maps", pid) == 0);
  int ended;
  must(waitpid(other, &ended, 0), "waitpid");
  say("user 65535 looks into it", "%s", ended == 0 ? "yes" : "no");
  /* It may be gone, with its namespace, before it ends by itself. */
  if ((other = make_inside(pid)) == 0) become_user(), _exit(kill(1, SIGTERM) < 0);
  must(waitpid(other, NULL, 0), "waitpid");
  say("SIGTERM of user 65535", "%s", outcome(pid));
}

static void observe(void) {
  arguments();
  refusals();
  signals("not to PID 1", 0, 0);
  signals("to PID 1 from outside", PID1, 0);
  signals("to PID 1 from inside", PID1, 1);
  pid_t pid = start_to_rest(PID1, NULL);
  if (pid == 0) return;
  status(pid, "at rest");
  orphans(pid, "orphans");
  status(pid, "at rest after orphans");
  end(pid, SIGTERM, "SIGTERM after orphans");
  user();
}

/* Instances of a program in a cgroup of their own, and what that is charged before and after their start, in bytes. */
struct crowd {
  const char *program;
  int count, ask, answer;
  long charged[2];
};

/* What the launcher has started: itself, and then an instance for each byte that it reads. */
static pid_t started(const struct crowd *crowd) {
  pid_t pid;
  if (read(crowd->answer, &pid, sizeof pid) != sizeof pid) fail(crowd->program, "its launcher is gone");
  return pid;
}

static void launch(struct crowd *crowd) {
  int ask[2], answer[2];
  must(pipe2(ask, O_CLOEXEC), "pipe2"), must(pipe2(answer, O_CLOEXEC), "pipe2");
  crowd->ask = ask[1], crowd->answer = answer[0];
  if (make(0) != 0) return;
  char path[64];
  snprintf(path, sizeof path, "/cgroup%s", crowd->program);
  must(mkdir(path, 0755), path);
  /* The kernel charges the one who forks, so it moves before it does. */
  must(write(open(strcat(path, "/cgroup.procs"), O_WRONLY | O_CLOEXEC), "0", 1), path);
  pid_t pid = getpid();
  do {
    must(write(answer[1], &pid, sizeof pid), "write");
    char byte;
    if (read(ask[0], &byte, 1) != 1) _exit(0);
  } while ((pid = make(0)) != 0);
  must(dup2(0, 2), "dup2");
  execve(crowd->program, (char *[]){(char *)crowd->program, NULL}, (char *[]){NULL});
  _exit(127);
}

/*
 * Reads what the crowds are charged, when none has changed for longer than the two seconds after which the kernel
 * adds the statistics up (mm/memcontrol.c, FLUSH_TIME). memory.current is ahead of the charges by up to 64 pages a CPU.
 */
static void measure(struct crowd *crowds, size_t count, int when) {
  for (int changed = 1, tries = 20; changed && tries > 0; tries--) {
    usleep(2500000);
    changed = 0;
    for (size_t i = 0; i < count; i++) {
      const char *text = contents("/cgroup%s/memory.stat", crowds[i].program);
      long now = number(text, "anon ") + number(text, "file ") + number(text, "kernel ");
      if (now != crowds[i].charged[when]) changed = 1;
      crowds[i].charged[when] = now;
    }
  }
}

static void memory(struct crowd *crowds, size_t count) {
  must(mkdir("/cgroup", 0755), "/cgroup");
  must(mount("cgroup2", "/cgroup", "cgroup2", 0, NULL), "mount /cgroup");
  must(write(open("/cgroup/cgroup.subtree_control", O_WRONLY | O_CLOEXEC), "+memory", 7), "cgroup.subtree_control");
  for (size_t i = 0; i < count; i++) launch(&crowds[i]), started(&crowds[i]);
  measure(crowds, count, 0);
  for (size_t i = 0; i < count; i++) {
    program = crowds[i].program;
    for (int j = 0; j < crowds[i].count; j++) {
      must(write(crowds[i].ask, "", 1), "write");
      pid_t pid = started(&crowds[i]);
      UNTIL(rests(pid));
    }
  }
  measure(crowds, count, 1);
  outputs[0] = outputs[1] = 0;
  for (size_t i = 0; i < count; i++) {
    program = crowds[i].program;
    say("memory", "%ld", (crowds[i].charged[1] - crowds[i].charged[0]) / crowds[i].count);
  }
}

int main(int argc, char **argv) {
  if (strstr(argv[argc - 1], "harness") == NULL) return 1;
  /* The kernel waits for the program that it calls, and PID 1 gets what that leaves. */
  if (fork() != 0) return 0;
  setsid();
  int console = open("/dev/console", O_RDWR | O_CLOEXEC);
  dup2(console, 1), dup2(console, 2);
  program = "/pause";
  must(mount("proc", "/proc", "proc", 0, NULL), "mount /proc");
  must(mount("dev", "/dev", "devtmpfs", 0, NULL), "mount /dev");
  must(dup2(open("/dev/null", O_RDWR), 0), "/dev/null");
  UNTIL(rests(1));

  struct utsname kernel;
  uname(&kernel);
  say("kernel", "%s", kernel.release);
  say("page", "%ld", sysconf(_SC_PAGESIZE));
  status(1, "machine's init at rest");
  static const char *const candidates[] = {"/pause", "/reference", "/hosted"};
  for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
    program = candidates[i];
    if (access(program, X_OK) == 0) observe();
  }
  struct crowd crowds[] = {{.program = "/pause", .count = 100},
                           {.program = "/reference", .count = 100},
                           {.program = "/musl", .count = 100},
                           {.program = "/floor", .count = 100},
                           {.program = "/hosted", .count = 20}};
  memory(crowds, access("/hosted", X_OK) == 0 ? 5 : 4);
  program = "/pause";
  orphans(1, "machine's init: orphans");
  status(1, "machine's init after orphans");
  say("end", "SIGTERM to the machine's init");
  /* What the console has not sent yet goes with the machine. */
  tcdrain(1);
  must(kill(1, SIGTERM), "kill");
  pause();
}
