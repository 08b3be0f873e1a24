/*
 * Runs assembled code as the kernel runs it: runner BASE HANDLER MAIN ARGUMENT..., with the bytes for the memory at
 * BASE on standard input. HANDLER handles a signal, once. MAIN is where a program starts, with these arguments, of
 * which each byte is two hexadecimal digits. Numbers are hexadecimal.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE = 0x10000, GUARD = 0x10000, MAX_ARGUMENTS = 16 };

/* What the kernel puts there for a program: argc, and the arguments behind it. What is below is the program's. */
static long stack[4096] __attribute__((aligned(16)));

/* Jumps to the first address, with the second as the stack pointer. */
void start(unsigned long entry, long *stack_pointer) __attribute__((noreturn));

#if defined __x86_64__
__asm__("start: mov %rsi, %rsp; jmp *%rdi");
#elif defined __aarch64__
__asm__("start: mov sp, x1; br x0");
#elif defined __arm__
__asm__(".arm\n.type start, %function\nstart: mov sp, r1; bx r0");
#elif defined __loongarch__
__asm__("start: move $sp, $a1; jr $a0");
#elif defined __powerpc64__
__asm__("start: mr 1, 4; mtctr 3; bctr");
#elif defined __riscv
__asm__("start: mv sp, a1; jr a0");
#elif defined __s390x__
__asm__("start: lgr %r15, %r3; br %r2");
#endif

static void *map(unsigned long address, unsigned long size, int flags) {
  void *place = mmap((void *)address, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  if (place == MAP_FAILED || (address != 0 && place != (void *)address)) _exit(101);
  return place;
}

/* The bytes of an argument and the zero behind them, with nothing to read behind that. */
static char *argument(const char *digits) {
  size_t length = strlen(digits) / 2;
  char *end = (char *)map(0, 2 * GUARD, 0) + GUARD;
  if (mprotect(end, GUARD, PROT_NONE) < 0) _exit(102);
  char *text = end - length - 1;
  for (size_t i = 0; i < length; i++) {
    const char byte[3] = {digits[2 * i], digits[2 * i + 1], 0};
    text[i] = (char)strtoul(byte, NULL, 16);
  }
  return text;
}

int main(int argc, char **argv) {
  if (argc < 4 || argc > 4 + MAX_ARGUMENTS) return 103;
  char *code = map(strtoul(argv[1], NULL, 16), SIZE, MAP_FIXED_NOREPLACE);
  for (ssize_t count; (count = read(0, code, SIZE)) > 0;) code += count;
  if (mprotect((void *)strtoul(argv[1], NULL, 16), SIZE, PROT_READ | PROT_EXEC) < 0) return 104;
  umask(0);
  struct sigaction action = {.sa_handler = (void (*)(int))strtoul(argv[2], NULL, 16)};
  if (sigaction(SIGUSR1, &action, NULL) < 0 || raise(SIGUSR1) != 0) return 105;
  long *stack_pointer = &stack[2048];
  stack_pointer[0] = argc - 4;
  for (int i = 4; i < argc; i++) stack_pointer[i - 3] = (long)argument(argv[i]);
  start(strtoul(argv[3], NULL, 16), stack_pointer);
}
