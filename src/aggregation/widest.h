// UMBEL_WIDEST before a function: compiled for several vector widths, of which the loader picks the
// widest that the processor has. Only for functions whose result does not depend on it.
#pragma once

// Sanitizers are not ready yet when the loader picks.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define UMBEL_WIDEST __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define UMBEL_WIDEST
#endif
