/**
 * libc's constants: those of Linux's asm-generic headers, which all architectures here share.
 */

export const NULL = null;

// sys/wait.h
export const WNOHANG = 1;

// signal.h
export const SIGINT = 2;
export const SIGTERM = 15;
export const SIGCHLD = 17;
export const SA_NOCLDSTOP = 0x1;
