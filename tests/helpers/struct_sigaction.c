#include <signal.h>
#include <stddef.h>

/* Read from the object file by the test, so that it works for a processor that this machine is not. */
const unsigned long layout[] = {
    offsetof(struct sigaction, sa_handler), offsetof(struct sigaction, sa_mask),
    offsetof(struct sigaction, sa_flags),   offsetof(struct sigaction, sa_restorer),
    sizeof(struct sigaction),               sizeof(sigset_t),
};
