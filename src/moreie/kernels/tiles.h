// Registers of 16 rows of 64 bytes, which processors with AMX multiply.

#pragma once

#include "vectors.h"

#if BYTES == 64 && defined(__linux__)
#define TILES

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

// Eight whole tiles.
struct Shape {
    uint8_t palette = 1, start = 0, unused[14] = {};
    uint16_t columns[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// All that has been written lies in memory: GCC (12) does not see that a tile is loaded from it.
inline void in_memory() { __asm__ volatile("" ::: "memory"); }

// Whether there are tiles for bytes and for numbers in half precision, and the system gives them, which it has to be
// asked for once for all threads (ARCH_REQ_XCOMP_PERM of XFEATURE_XTILEDATA).
inline bool ask_for_tiles() {
    unsigned a, b, c, d;
    const unsigned needed = 1u << 22 | 1u << 24 | 1u << 25;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & needed) == needed &&
           syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}
inline bool has_tiles() {
    static const bool there = ask_for_tiles();
    return there;
}

} // namespace

#endif
