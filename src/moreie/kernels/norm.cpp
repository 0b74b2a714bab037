// A product, in single or half precision (bfloat16), added to the states beside it, and the layer norm of their sum, in
// one walk over the states: what encoders/norms.py defines.

#include "singles.h"

#include <cmath>

namespace {

// Where the first and the second W of 2 W numbers lie in two parts of halves, and the reverse.
struct First {
    static constexpr int place(int k) { return k / 2 + k % 2 * int(W); }
};
struct Second {
    static constexpr int place(int k) { return First::place(k) + int(W) / 2; }
};
struct Even {
    static constexpr int place(int k) { return 2 * k; }
};
struct Odd {
    static constexpr int place(int k) { return 2 * k + 1; }
};

inline float sum(Row x) {
    return folded<float>(x, [](float a, float b) { return a + b; });
}

// For each of N rows of H numbers, the norm of added + states: in place of `added`, and in place of `states` the same in
// single precision, or, where BEFORE, the sum.
template <typename R, bool BEFORE>
void added_norm(int64_t N, int64_t H, R *added, float *states, const float *weight, const float *bias, float eps) {
    constexpr bool HALVES = !std::is_same<R, float>::value;
    for (int64_t n = 0; n < N; n++, added += H, states += H) {
        Row total[2] = {}, squares[2] = {};
        for (int64_t c = 0; c < H; c += 2 * W) {
            Row first = part(added + c, 0), second = part(added + c, 1);
            if (HALVES) {
                const Row even = first, odd = second;
                first = permuted<First>(even, odd);
                second = permuted<Second>(even, odd);
            }
            first += part(states + c, 0);
            second += part(states + c, 1);
            write(first, second, states + c);
            total[0] += first;
            total[1] += second;
        }
        const Row mean = everywhere(sum(total[0] + total[1]) / float(H));
        for (int64_t c = 0; c < H; c += 2 * W) {
            const Row first = part(states + c, 0) - mean, second = part(states + c, 1) - mean;
            squares[0] += first * first;
            squares[1] += second * second;
        }
        const Row by = everywhere(1 / std::sqrt(sum(squares[0] + squares[1]) / float(H) + eps));
        for (int64_t c = 0; c < H; c += 2 * W) {
            const Row first = (part(states + c, 0) - mean) * by * part(weight + c, 0) + part(bias + c, 0);
            const Row second = (part(states + c, 1) - mean) * by * part(weight + c, 1) + part(bias + c, 1);
            if (!BEFORE)
                write(first, second, states + c);
            if (HALVES)
                write(permuted<Even>(first, second), permuted<Odd>(first, second), added + c);
            else
                write(first, second, added + c);
        }
    }
}

} // namespace

extern "C" const int64_t moreie_norm_unit;
const int64_t moreie_norm_unit = 2 * W;

#define NORMS(NAME, BEFORE)                                                                                            \
    extern "C" void NAME##_float32(int64_t N, int64_t H, float *added, float *states, const float *weight,            \
                                   const float *bias, float eps) {                                                    \
        added_norm<float, BEFORE>(N, H, added, states, weight, bias, eps);                                            \
    }                                                                                                                  \
    extern "C" void NAME##_bfloat16(int64_t N, int64_t H, uint16_t *added, float *states, const float *weight,        \
                                    const float *bias, float eps) {                                                   \
        added_norm<uint16_t, BEFORE>(N, H, added, states, weight, bias, eps);                                         \
    }

NORMS(moreie_norm_of_sum, false)
NORMS(moreie_sum_and_norm, true)
