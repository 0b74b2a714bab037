// Products of rows in 8 bits by one kind of instruction; included once for each kind, by int8.cpp, with
//   KIND                the namespace,
//   WITH                what the compiler has to be told of the processor,
//   DOT(t, x, a)        t and the sums of four products each of unsigned bytes x and signed bytes a, or
//   DOTS(t, x, a, y, b) the same of x and a, and of y and b,
//   ROWS                rows at once: their sums fill the registers.

namespace KIND {

// COUNT rows times the weights of 2 W outputs.
template <typename R, bool GELU, int COUNT>
WITH inline void block(const uint8_t *rows, const float *steps, const Weights &of, int64_t pair, R *out) {
    Whole sums[2 * COUNT];
    const int8_t *weights = of.bytes + pair * 2 * W * of.width;
#pragma GCC unroll 32
    for (int r = 0; r < COUNT; r++) {
        sums[2 * r] = whole(of.offsets + pair * 2 * W);
        sums[2 * r + 1] = whole(of.offsets + pair * 2 * W + W);
    }
#ifdef DOTS
    for (int64_t k = 0; k < of.width; k += 8, weights += 16 * W) {
        const Whole a = whole(weights), b = whole(weights + 4 * W);
        const Whole c = whole(weights + 8 * W), d = whole(weights + 12 * W);
#pragma GCC unroll 32
        for (int r = 0; r < COUNT; r++) {
            const Whole x = four(rows + r * of.width + k), y = four(rows + r * of.width + k + 4);
            sums[2 * r] = DOTS(sums[2 * r], x, a, y, c);
            sums[2 * r + 1] = DOTS(sums[2 * r + 1], x, b, y, d);
        }
    }
#else
    for (int64_t k = 0; k < of.width; k += 4, weights += 8 * W) {
        const Whole a = whole(weights), b = whole(weights + 4 * W);
#pragma GCC unroll 32
        for (int r = 0; r < COUNT; r++) {
            const Whole x = four(rows + r * of.width + k);
            sums[2 * r] = DOT(sums[2 * r], x, a);
            sums[2 * r + 1] = DOT(sums[2 * r + 1], x, b);
        }
    }
#endif
#pragma GCC unroll 32
    for (int r = 0; r < COUNT; r++)
        finish<R, GELU>(sums[2 * r], sums[2 * r + 1], steps[r], of, pair, out + r * of.outputs);
}

template <typename R, bool GELU>
WITH void multiply(int64_t N, const uint8_t *rows, const float *steps, const Weights &of, R *out) {
    for (int64_t pair = 0; pair < of.outputs / (2 * W); pair++) {
        R *own = out + pair * 2 * W;
        int64_t n = 0;
        for (; n + ROWS <= N; n += ROWS)
            block<R, GELU, ROWS>(rows + n * of.width, steps + n, of, pair, own + n * of.outputs);
        for (; n + 4 <= N; n += 4)
            block<R, GELU, 4>(rows + n * of.width, steps + n, of, pair, own + n * of.outputs);
        for (; n < N; n++)
            block<R, GELU, 1>(rows + n * of.width, steps + n, of, pair, own + n * of.outputs);
    }
}

} // namespace KIND

#undef KIND
#undef WITH
#undef DOT
#undef DOTS
#undef ROWS
