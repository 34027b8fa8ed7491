// The innermost loop of products of floats with AVX2, in assembly: sums, lanes and a word of the row operand fill all sixteen registers,
// and gcc 12 spends more of them, reads the lanes again for every row and keeps sums on the stack (23 instead of 62 FLOP a cycle on Zen 3).
// Included by gemm_micro.inl.
//
// Registers 0 to 11 hold the sums of [row][3 vectors], 12 to 14 lanes, 15 a word. V: 2 or 3 vectors.
#define MW_VECTORS2(what, s0, s1, s2) what(0, 12, s0) what(32, 13, s1)
#define MW_VECTORS3(what, s0, s1, s2) MW_VECTORS2(what, s0, s1, s2) what(64, 14, s2)
#define MW_LOAD_SUM(at, lanes, sum) "vmovups " #at "(%[out]), %%ymm" #sum "\n\t"
#define MW_STORE_SUM(at, lanes, sum) "vmovups %%ymm" #sum ", " #at "(%[out])\n\t"
#define MW_CLEAR_SUM(at, lanes, sum) "vxorps %%xmm" #sum ", %%xmm" #sum ", %%xmm" #sum "\n\t"
#define MW_ALL_SUMS(V, what, next) \
  MW_VECTORS##V(what, 0, 1, 2) next MW_VECTORS##V(what, 3, 4, 5) next MW_VECTORS##V(what, 6, 7, 8) next MW_VECTORS##V(what, 9, 10, 11)
#define MW_NEXT_OUT "add %[out_row], %[out]\n\t"

// The products of word number n after those that a and b point at.
#define MW_PRODUCT(at, lanes, sum) "vfmadd231ps %%ymm" #lanes ", %%ymm15, %%ymm" #sum "\n\t"
#define MW_ROW(V, n, row, s0, s1, s2) "vbroadcastss " #n "*%c[a_step](%[a]" row "), %%ymm15\n\t" MW_VECTORS##V(MW_PRODUCT, s0, s1, s2)
#define MW_LOAD2(n) "vmovups " #n "*%c[b_step](%[b]), %%ymm12\n\tvmovups " #n "*%c[b_step]+32(%[b]), %%ymm13\n\t"
#define MW_LOAD3(n) MW_LOAD2(n) "vmovups " #n "*%c[b_step]+64(%[b]), %%ymm14\n\t"
#define MW_WORD(V, n)                                                                                             \
  MW_LOAD##V(n) MW_ROW(V, n, "", 0, 1, 2) MW_ROW(V, n, ",%[a_row]", 3, 4, 5) MW_ROW(V, n, ",%[a_row],2", 6, 7, 8) \
      MW_ROW(V, n, ",%[a_row3]", 9, 10, 11)
#define MW_NEXT_WORD(count) "add $" #count "*%c[a_step], %[a]\n\tadd $" #count "*%c[b_step], %[b]\n\t"
#define MW_NEXT_ANY_WORD "add %[a_any], %[a]\n\tadd %[b_any], %[b]\n\t"

// Words by fours and the rest one by one. Steps known to the compiler: four words then take 80 instructions, of which 48 multiply, and the
// fewer there are, the more is left where other threads share the core. Else a_step and b_step are 0 and a_any and b_any count.
#define MW_TILE(V, four_words, one_word) \
  asm volatile("test %[add], %[add]\n\tjz 1f\n\t" MW_ALL_SUMS(V, MW_LOAD_SUM, MW_NEXT_OUT) "sub %[out_row3], %[out]\n\tjmp 2f\n\t"  \
               "1:\n\t" MW_ALL_SUMS(V, MW_CLEAR_SUM, "")                                                                            \
               "2:\n\tsub $4, %[words]\n\tjl 4f\n\t.p2align 5\n\t"                                                                  \
               "3:\n\t" four_words "sub $4, %[words]\n\tjge 3b\n\t"                                                                 \
               "4:\n\tadd $4, %[words]\n\tjz 6f\n\t"                                                                                \
               "5:\n\t" one_word "dec %[words]\n\tjnz 5b\n\t"                                                                       \
               "6:\n\t" MW_ALL_SUMS(V, MW_STORE_SUM, MW_NEXT_OUT)                                                                   \
               : [words] "+&r"(words), [a] "+&r"(a), [b] "+&r"(b), [out] "+&r"(out)                                                 \
               : [a_row] "r"(a_row), [a_row3] "r"(3 * a_row), [a_step] "i"(kAStep), [b_step] "i"(kBStep), [a_any] "rm"(a_step),    \
                 [b_any] "rm"(b_step), [out_row] "r"(out_row), [out_row3] "rm"(3 * out_row), [add] "r"(static_cast<int>(add))      \
               : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", \
                 "xmm12", "xmm13", "xmm14", "xmm15")
#define MW_FOUR_WORDS(V) MW_WORD(V, 0) MW_WORD(V, 1) MW_WORD(V, 2) MW_WORD(V, 3) MW_NEXT_WORD(4)
#define MW_ANY_WORD(V) MW_WORD(V, 0) MW_NEXT_ANY_WORD

template <int V, int kAStep, int kBStep>
inline void multiply_four_rows(int64_t words, const char* a, int64_t a_row, int64_t a_step, const char* b, int64_t b_step, float* out,
                               int64_t out_row, bool add) {
  constexpr bool kKnown = kAStep != 0;
  if constexpr (kKnown && V == 3) {
    MW_TILE(3, MW_FOUR_WORDS(3), MW_WORD(3, 0) MW_NEXT_WORD(1));
  } else if constexpr (kKnown) {
    MW_TILE(2, MW_FOUR_WORDS(2), MW_WORD(2, 0) MW_NEXT_WORD(1));
  } else if constexpr (V == 3) {
    MW_TILE(3, MW_ANY_WORD(3) MW_ANY_WORD(3) MW_ANY_WORD(3) MW_ANY_WORD(3), MW_ANY_WORD(3));
  } else {
    MW_TILE(2, MW_ANY_WORD(2) MW_ANY_WORD(2) MW_ANY_WORD(2) MW_ANY_WORD(2), MW_ANY_WORD(2));
  }
}

// out[4][V vectors] (+)= words of 4 rows times those of the lanes; strides in bytes.
template <int V>
inline void multiply_four_rows(int64_t words, const char* a, int64_t a_row, int64_t a_step, const char* b, int64_t b_step, float* out,
                               int64_t out_row, bool add) {
  constexpr int kPanel = 4 * V * kLanes, kStrips = 32, kInPlace = 4;
  if (b_step == kPanel && a_step == kStrips)
    return multiply_four_rows<V, kStrips, kPanel>(words, a, a_row, a_step, b, b_step, out, out_row, add);
  if (b_step == kPanel && a_step == kInPlace)
    return multiply_four_rows<V, kInPlace, kPanel>(words, a, a_row, a_step, b, b_step, out, out_row, add);
  multiply_four_rows<V, 0, 0>(words, a, a_row, a_step, b, b_step, out, out_row, add);
}
