// The frequencies against those of transformers 5.23 (LlamaRotaryEmbedding.inv_freq, _compute_yarn_parameters), bit by bit.
#include "ops/rope.h"

#include "runner.h"

namespace mw::testing {
namespace {

const std::vector<float> kDefault{0x1p+0f,        0x1.43d136p-2f, 0x1.99999ap-4f,  0x1.030dc6p-5f,
                                  0x1.47ae14p-7f, 0x1.9e7c7p-9f,  0x1.0624dep-10f, 0x1.4b96cp-12f};
const std::vector<float> kLinear{0x1p-2f,        0x1.43d136p-4f, 0x1.99999ap-6f,  0x1.030dc6p-7f,
                                 0x1.47ae14p-9f, 0x1.9e7c7p-11f, 0x1.0624dep-12f, 0x1.4b96cp-14f};
const std::vector<float> kLlama32{
    0x1p+0f,         0x1.53c38cp-1f,  0x1.c2ef78p-2f,  0x1.2b3dc6p-2f,  0x1.8d276p-3f,   0x1.078d4p-3f,   0x1.5dc95ap-4f,  0x1.d03ccep-5f,
    0x1.34119p-5f,   0x1.98de92p-6f,  0x1.0f5386p-6f,  0x1.681adap-7f,  0x1.ddee9ep-8f,  0x1.3d2804p-8f,  0x1.a4ee4p-9f,   0x1.524f36p-10f,
    0x1.c26c4p-12f,  0x1.9731eep-14f, 0x1.46831ap-16f, 0x1.b15902p-17f, 0x1.1f91fp-17f,  0x1.7da9e8p-18f, 0x1.fa8b86p-19f, 0x1.5024d6p-19f,
    0x1.be2188p-20f, 0x1.280d96p-20f, 0x1.88ec2p-21f,  0x1.04be68p-21f, 0x1.5a0f4ep-22f, 0x1.cb4a9ap-23f, 0x1.30c94ep-23f, 0x1.94836p-24f};
const std::vector<float> kLlama31{
    0x1p+0f,         0x1.a11582p-1f,  0x1.53c38cp-1f,  0x1.14c708p-1f,  0x1.c2ef78p-2f,  0x1.6f56fap-2f,  0x1.2b3dc6p-2f,  0x1.e788c2p-3f,
    0x1.8d276p-3f,   0x1.43874p-3f,   0x1.078d4p-3f,   0x1.ad6338p-4f,  0x1.5dc95ap-4f,  0x1.1cf13p-4f,   0x1.d03ccep-5f,  0x1.7a2d08p-5f,
    0x1.34119p-5f,   0x1.f5ea7ep-6f,  0x1.98de92p-6f,  0x1.4d1272p-6f,  0x1.0f5386p-6f,  0x1.ba0dd8p-7f,  0x1.681adap-7f,  0x1.2558fep-7f,
    0x1.ddee9ep-8f,  0x1.8554ecp-8f,  0x1.3d2804p-8f,  0x1.025c6ap-8f,  0x1.a4ee4p-9f,   0x1.1bfa0cp-9f,  0x1.67a23ap-10f, 0x1.c12f3cp-11f,
    0x1.132ba4p-11f, 0x1.47e21p-12f,  0x1.765ba4p-13f, 0x1.90d10cp-14f, 0x1.46831ap-14f, 0x1.09fb7ep-14f, 0x1.b15902p-15f, 0x1.610332p-15f,
    0x1.1f91fp-15f,  0x1.d484dep-16f, 0x1.7da9e8p-16f, 0x1.36e8eap-16f, 0x1.fa8b86p-17f, 0x1.9ca3eap-17f, 0x1.5024d6p-17f, 0x1.11d41ep-17f,
    0x1.be2188p-18f, 0x1.6b6d0ep-18f, 0x1.280d96p-18f, 0x1.e257p-19f,   0x1.88ec2p-19f,  0x1.4014d2p-19f, 0x1.04be68p-19f, 0x1.a8d01p-20f,
    0x1.5a0f4ep-20f, 0x1.19e8p-20f,   0x1.cb4a9ap-21f, 0x1.76258ep-21f, 0x1.30c94ep-21f, 0x1.f09184p-22f, 0x1.94836p-22f,  0x1.4985fep-22f};

const std::vector<float> kGptOss{
    0x1p+0f,         0x1.60ca6ap-1f,  0x1.e62d44p-2f,  0x1.4eff54p-2f,  0x1.cda7f4p-3f, 0x1.3e19fap-3f,  0x1.b65f3ep-4f,  0x1.2e0ec8p-4f,
    0x1.a04328p-5f,  0x1.03bbaap-5f,  0x1.3cc8dep-6f,  0x1.7bd928p-7f,  0x1.bd508p-8f,  0x1.f9fc28p-9f,  0x1.127006p-9f,  0x1.13eefp-10f,
    0x1.dea878p-12f, 0x1.0f3372p-13f, 0x1.415b8cp-15f, 0x1.badbf8p-16f, 0x1.31265p-16f, 0x1.a485f4p-17f, 0x1.21c258p-17f, 0x1.8f5056p-18f,
    0x1.132518p-18f, 0x1.7b2c8ep-19f, 0x1.05448ap-19f, 0x1.680cdp-20f,  0x1.f02e5p-21f, 0x1.55e4p-21f,   0x1.d727d6p-22f, 0x1.44a5a6p-22f};
const std::vector<float> kDeepSeek{
    0x1p+0f,         0x1.7ff222p-1f,  0x1.1feb34p-1f, 0x1.afd136p-2f,  0x1.43d136p-2f,  0x1.e5a846p-3f,  0x1.6c310ep-3f,  0x1.111aeep-3f,
    0x1.99999ap-4f,  0x1.33281ap-4f,  0x1.ccab84p-5f, 0x1.3f8b74p-5f,  0x1.b86436p-6f,  0x1.2d1b86p-6f,  0x1.97e506p-7f,  0x1.111aeep-7f,
    0x1.6872b2p-8f,  0x1.d2e0ccp-9f,  0x1.26d42cp-9f, 0x1.67459ap-10f, 0x1.9e7c6ep-11f, 0x1.b32624p-12f, 0x1.74eea6p-13f, 0x1.17a8e2p-15f,
    0x1.a36e2ep-16f, 0x1.3a8746p-16f, 0x1.d7b9ep-17f, 0x1.61bea2p-17f, 0x1.094566p-17f, 0x1.8dd9bap-18f, 0x1.2a5884p-18f, 0x1.bf749ep-19f};
const std::vector<float> kNarrowYarn{0x1p+0f,        0x1.43d136p-2f, 0x1.99999ap-6f,  0x1.030dc6p-7f,
                                     0x1.47ae14p-9f, 0x1.9e7c7p-11f, 0x1.0624dep-12f, 0x1.4b96cp-14f};

}  // namespace

TEST(ops, rope_frequencies_are_those_of_transformers) {
  EXPECT(rope_frequencies({}, 16) == kDefault);
  EXPECT(rope_frequencies({.scaling = "linear", .factor = 4}, 16) == kLinear);
  EXPECT(rope_frequencies({.theta = 500000, .scaling = "llama3", .factor = 32}, 64) == kLlama32);
  EXPECT(rope_frequencies({.theta = 500000, .scaling = "llama3", .factor = 8}, 128) == kLlama31);
}

TEST(ops, yarn_frequencies_and_factors_are_those_of_transformers) {
  // Two of torch's powers of 150000 are not the nearest floats.
  const std::vector<float> gpt_oss =
      rope_frequencies({.theta = 150000, .scaling = "yarn", .factor = 32, .original_positions = 4096, .truncate = false}, 64);
  int different = 0;
  for (size_t i = 0; i < kGptOss.size(); ++i) {
    different += gpt_oss[i] != kGptOss[i];
    EXPECT_NEAR(gpt_oss[i] / kGptOss[i], 1.0, 0x1.8p-23);
  }
  EXPECT(gpt_oss.size() == kGptOss.size() && different <= 2);
  EXPECT(rope_frequencies({.scaling = "yarn", .factor = 40, .original_positions = 4096}, 64) == kDeepSeek);
  EXPECT(rope_frequencies({.scaling = "yarn", .factor = 4, .original_positions = 64, .beta_fast = 2, .beta_slow = 1.9}, 16) == kNarrowYarn);
  EXPECT_EQ(yarn_attention_factor(32), 1.3465735902799727);
  EXPECT_EQ(yarn_attention_factor(4), 1.138629436111989);
  EXPECT_EQ(yarn_attention_factor(0.5), 1.0);
  EXPECT_EQ(yarn_attention_factor(40, 1, 1), 1.0);
  EXPECT_EQ(yarn_attention_factor(40, 1, 0.707), 1.0857263992561355);
  EXPECT_EQ(yarn_attention_factor(40, 1, 0), yarn_mscale(40));
  EXPECT_NEAR(yarn_mscale(40, 0.707), 1.2608, 1e-4);
}

TEST(ops, rope_attributes_survive_the_round_trip) {
  const RopeAttributes rope{.theta = 1e6,
                            .pairing = "interleaved",
                            .scaling = "llama3",
                            .factor = 8,
                            .low_freq_factor = 2,
                            .high_freq_factor = 5,
                            .original_positions = 4096,
                            .attention_factor = 1.5,
                            .inverse = true};
  EXPECT(RopeAttributes::from(rope.to_attributes()) == rope);
  const RopeAttributes yarn{
      .scaling = "yarn", .factor = 40, .original_positions = 4096, .beta_fast = 16, .beta_slow = 2, .truncate = false};
  EXPECT(RopeAttributes::from(yarn.to_attributes()) == yarn);
  EXPECT(RopeAttributes::from(RopeAttributes{}.to_attributes()) == RopeAttributes{});
}

}  // namespace mw::testing
