/*
 * Runs an assembled routine and prints what it does: recorder BASE ENTRY RESULTS FUNCTION..., with the bytes for the
 * page at BASE on standard input. A FUNCTION is its address and, for each argument, the number of bytes it points to
 * or -1 for an integer: "7f000,-1,20". The first is the one that returns the address of errno. The others return the
 * RESULTS, 64 bits each, in turn; the process ends with the call for which there is none left.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, MAX_FUNCTIONS = 16, MAX_ARGUMENTS = 6, ERRNO = 0x12345678, OVERWRITTEN = -1 };

struct function {
  unsigned long address;
  int arguments;
  long lengths[MAX_ARGUMENTS];
};

static struct function functions[MAX_FUNCTIONS];
static unsigned long base;
static char *results;

/* errno, with an int on either side that is no business of the routine. */
static int *around_errno;

/* Calls the routine with `before` in the registers that it has to keep, and leaves what it kept in `after`. */
void run(unsigned long entry);

/* Where every function leads: calls `record`, and overwrites what a function may overwrite besides its result. */
void recorder(void);

#ifdef __x86_64__
enum { REGISTERS = 7 }; /* rbx, rbp, r12 to r15, rsp */
struct trampoline {
  uint8_t mov_r10d[2];
  uint32_t index;
  uint8_t mov_r11[2];
  void (*target)(void);
  uint8_t jmp_r11[3];
} __attribute__((packed));
#define TRAMPOLINE(index) {{0x41, 0xba}, index, {0x49, 0xbb}, recorder, {0x41, 0xff, 0xe3}}
__asm__(
    "recorder: push %r9; push %r8; push %rcx; push %rdx; push %rsi; push %rdi\n"
    "mov %rsp, %rdi; mov %r10d, %esi; lea 56(%rsp), %rdx; movzbl %al, %ecx\n"
    "push %rbp; mov %rsp, %rbp; and $-16, %rsp; call record; leave; add $48, %rsp\n"
    "mov $-3, %rcx; mov %rcx, %rdx; mov %rcx, %rsi; mov %rcx, %rdi\n"
    "mov %rcx, %r8; mov %rcx, %r9; mov %rcx, %r10; mov %rcx, %r11; ret\n"
    "run: push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; sub $8, %rsp\n"
    "mov before, %rbx; mov before+8, %rbp; mov before+16, %r12\n"
    "mov before+24, %r13; mov before+32, %r14; mov before+40, %r15; mov %rsp, before+48\n"
    "mov $-1, %rax; call *%rdi\n"
    "mov %rbx, after; mov %rbp, after+8; mov %r12, after+16\n"
    "mov %r13, after+24; mov %r14, after+32; mov %r15, after+40; mov %rsp, after+48\n"
    "mov before+48, %rsp; add $8, %rsp; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n");
#else
enum { REGISTERS = 12 }; /* x19 to x29, sp */
struct trampoline {
  uint32_t movz_w16, ldr_x17, br_x17;
  void (*target)(void);
} __attribute__((packed));
#define TRAMPOLINE(index) {0x52800010 | (uint32_t)(index) << 5, 0x58000051, 0xd61f0220, recorder}
__asm__(
    "recorder: stp x29, x30, [sp, #-64]!; stp x0, x1, [sp, #16]; stp x2, x3, [sp, #32]; stp x4, x5, [sp, #48]\n"
    "add x0, sp, #16; mov w1, w16; add x2, sp, #64; mov w3, #0; bl record; ldp x29, x30, [sp], #64\n"
    "mov x1, #-3; mov x2, x1; mov x3, x1; mov x4, x1; mov x5, x1; mov x6, x1; mov x7, x1; mov x8, x1; mov x9, x1\n"
    "mov x10, x1; mov x11, x1; mov x12, x1; mov x13, x1; mov x14, x1; mov x15, x1; mov x16, x1; mov x17, x1; ret\n"
    "run: stp x29, x30, [sp, #-96]!; stp x19, x20, [sp, #16]; stp x21, x22, [sp, #32]; stp x23, x24, [sp, #48]\n"
    "stp x25, x26, [sp, #64]; stp x27, x28, [sp, #80]; ldr x16, =before; mov x17, sp; str x17, [x16, #88]\n"
    "ldp x19, x20, [x16]; ldp x21, x22, [x16, #16]; ldp x23, x24, [x16, #32]\n"
    "ldp x25, x26, [x16, #48]; ldp x27, x28, [x16, #64]; ldr x29, [x16, #80]; blr x0\n"
    "ldr x16, =after; stp x19, x20, [x16]; stp x21, x22, [x16, #16]; stp x23, x24, [x16, #32]\n"
    "stp x25, x26, [x16, #48]; stp x27, x28, [x16, #64]; mov x17, sp; stp x29, x17, [x16, #80]\n"
    "ldr x16, =before; ldr x17, [x16, #88]; mov sp, x17; ldp x19, x20, [sp, #16]; ldp x21, x22, [sp, #32]\n"
    "ldp x23, x24, [sp, #48]; ldp x25, x26, [sp, #64]; ldp x27, x28, [sp, #80]; ldp x29, x30, [sp], #96; ret\n");
#endif
unsigned long before[REGISTERS], after[REGISTERS];

/* Data lies in the page, machine words above the stack pointer at the call. */
static void print_bytes(unsigned long address, unsigned long length, unsigned long stack) {
  const int in_page = address >= base && address + length <= base + PAGE && address % 16 == 0;
  const int on_stack = address >= stack && address + length <= stack + PAGE && address % sizeof(long) == 0;
  if (!in_page && !on_stack) {
    printf(" no data at %lx", address);
    return;
  }
  putchar(' ');
  putchar('[');
  for (unsigned long at = address; at < address + length; at++) printf("%02x", *(uint8_t *)at);
  putchar(']');
}

/* `stack`: its pointer at the call; `vectors`: how many vector registers a variadic function would expect. */
unsigned long record(const unsigned long *arguments, int index, unsigned long stack, int vectors) {
  const struct function *called = &functions[index];
  if (stack % 16 != 0) printf("the stack is not aligned: %lx\n", stack);
  if (vectors != 0) printf("%d vector registers\n", vectors);
  printf("%lx", called->address);
  for (int i = 0; i < called->arguments; i++) {
    if (called->lengths[i] < 0) printf(" %lx", arguments[i]);
    else print_bytes(arguments[i], called->lengths[i], stack);
  }
  putchar('\n');
  if (index == 0) return (unsigned long)&around_errno[1];
  around_errno[0] = around_errno[1] = around_errno[2] = OVERWRITTEN;
  if (*results == '\0') {
    puts("no result left");
    _exit(0);
  }
  unsigned long result = strtoul(results, &results, 16);
  if (*results == ',') results++;
  return result;
}

static void *page(unsigned long address) {
  void *wanted = (void *)address;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
  /* Kernels and emulators that do not know the flag may choose another place. */
  if (mmap(wanted, PAGE, PROT_READ | PROT_WRITE, flags, -1, 0) == wanted) return wanted;
  printf("no page at %lx\n", address);
  _exit(1);
}

int main(int argc, char **argv) {
  int on_the_stack[3] = {0, ERRNO, 0}; /* where its address has more than 32 bits */
  around_errno = on_the_stack;
  if (argc < 5 || argc > 4 + MAX_FUNCTIONS) return 2;
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* so that a crash leaves what came before it */
  base = strtoul(argv[1], NULL, 16);
  results = argv[3];
  for (int index = 0; index < argc - 4; index++) {
    struct function *function = &functions[index];
    char *field = argv[index + 4];
    function->address = strtoul(field, &field, 16);
    while (*field == ',' && function->arguments < MAX_ARGUMENTS)
      function->lengths[function->arguments++] = strtol(field + 1, &field, 10);
    const struct trampoline trampoline = TRAMPOLINE(index);
    void *start = page(function->address & -(unsigned long)PAGE);
    memcpy((void *)function->address, &trampoline, sizeof trampoline);
    if (mprotect(start, PAGE, PROT_READ | PROT_EXEC) < 0) return 3;
  }
  if (fread(page(base), 1, PAGE, stdin) != PAGE || mprotect((void *)base, PAGE, PROT_READ | PROT_EXEC) < 0) return 3;
  for (int i = 0; i < REGISTERS; i++) before[i] = 0x0123456789abcdef * (i + 1);
  run(base + strtoul(argv[2], NULL, 16));
  printf("returned, errno %x, beside it %d %d\n", around_errno[1], around_errno[0], around_errno[2]);
  for (int i = 0; i < REGISTERS; i++)
    if (after[i] != before[i]) printf("register %d: %lx, was %lx\n", i, after[i], before[i]);
  return 0;
}
