// The innermost loop of products of floats with AVX2, in assembly: sums, lanes and a word of the row operand fill all sixteen registers,
// and gcc 12 spends more of them, reads the lanes again for every row and keeps sums on the stack (23 instead of 62 FLOP a cycle on Zen 3).
// out[4][lanes] (+)= words of 4 rows times those of the panel; strides in bytes. Included by gemm_micro.inl.
#define MW_CLEAR(sum) "vxorps %%xmm" #sum ", %%xmm" #sum ", %%xmm" #sum "\n\t"
#define MW_LOAD(at, sum) "vmovups " #at "(%[out]), %%ymm" #sum "\n\t"
#define MW_STORE(at, sum) "vmovups %%ymm" #sum ", " #at "(%[out])\n\t"
#define MW_SUM(lanes, sum) "vfmadd231ps %%ymm" #lanes ", %%ymm15, %%ymm" #sum "\n\t"
#define MW_NEXT_ROW "add %[out_row], %[out]\n\t"
#define MW_ROW3(move, s0, s1, s2) move(0, s0) move(32, s1) move(64, s2)
#define MW_ROW2(move, s0, s1) move(0, s0) move(32, s1)
#define MW_ALL_ROWS3(move) \
  MW_ROW3(move, 0, 1, 2) MW_NEXT_ROW MW_ROW3(move, 3, 4, 5) MW_NEXT_ROW MW_ROW3(move, 6, 7, 8) MW_NEXT_ROW MW_ROW3(move, 9, 10, 11)
#define MW_ALL_ROWS2(move) \
  MW_ROW2(move, 0, 1) MW_NEXT_ROW MW_ROW2(move, 3, 4) MW_NEXT_ROW MW_ROW2(move, 6, 7) MW_NEXT_ROW MW_ROW2(move, 9, 10)
#define MW_FIRST_ROW "sub %[out_row3], %[out]\n\t"
#define MW_BROADCAST(at) "vbroadcastss " at ", %%ymm15\n\t"
#define MW_ALL_WORDS(lanes, products)                                                                                                \
  lanes MW_BROADCAST("(%[a])") products(0, 1, 2) MW_BROADCAST("(%[a],%[a_row])") products(3, 4, 5) MW_BROADCAST("(%[a],%[a_row],2)") \
      products(6, 7, 8) MW_BROADCAST("(%[a],%[a_row3])") products(9, 10, 11) "add %[a_step], %[a]\n\tadd %[b_step], %[b]\n\t"
#define MW_PRODUCTS3(s0, s1, s2) MW_SUM(12, s0) MW_SUM(13, s1) MW_SUM(14, s2)
#define MW_PRODUCTS2(s0, s1, s2) MW_SUM(12, s0) MW_SUM(13, s1)
#define MW_LANES2 "vmovups (%[b]), %%ymm12\n\tvmovups 32(%[b]), %%ymm13\n\t"
#define MW_LANES3 MW_LANES2 "vmovups 64(%[b]), %%ymm14\n\t"
#define MW_CLEAR_ALL \
  MW_CLEAR(0)        \
  MW_CLEAR(1) MW_CLEAR(2) MW_CLEAR(3) MW_CLEAR(4) MW_CLEAR(5) MW_CLEAR(6) MW_CLEAR(7) MW_CLEAR(8) MW_CLEAR(9) MW_CLEAR(10) MW_CLEAR(11)
// Sums are read or cleared, then words are taken in twos and the last one alone.
#define MW_TILE(move, word)                                                                                                        \
  asm volatile("test %[add], %[add]\n\tjz 1f\n\t" move(MW_LOAD) MW_FIRST_ROW                                                       \
               "jmp 2f\n\t"                                                                                                        \
               "1:\n\t" MW_CLEAR_ALL                                                                                               \
               "2:\n\tsub $2, %[words]\n\tjl 4f\n\t.p2align 5\n\t"                                                                 \
               "3:\n\t" word word                                                                                                  \
               "sub $2, %[words]\n\tjge 3b\n\t"                                                                                    \
               "4:\n\tadd $2, %[words]\n\tjz 5f\n\t" word "5:\n\t" move(MW_STORE)                                                  \
               : [words] "+r"(words), [a] "+r"(a), [b] "+r"(b), [out] "+r"(out)                                                    \
               : [a_row] "r"(a_row), [a_row3] "r"(3 * a_row), [a_step] "r"(a_step), [b_step] "r"(b_step), [out_row] "r"(out_row),  \
                 [out_row3] "rm"(3 * out_row), [add] "r"(static_cast<int>(add))                                                    \
               : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", \
                 "xmm12", "xmm13", "xmm14", "xmm15")

template <int V>
inline void multiply_four_rows(int64_t words, const char* a, int64_t a_row, int64_t a_step, const char* b, int64_t b_step, float* out,
                               int64_t out_row, bool add) {
  if constexpr (V == 3) {
    MW_TILE(MW_ALL_ROWS3, MW_ALL_WORDS(MW_LANES3, MW_PRODUCTS3));
  } else {
    MW_TILE(MW_ALL_ROWS2, MW_ALL_WORDS(MW_LANES2, MW_PRODUCTS2));
  }
}
