#include "models/counts.h"

#include "config/model_lookup.h"
#include "models/registry.h"
#include "runner.h"

namespace mw {
namespace {

struct Row {
  std::string name;
  int64_t total, active, vision, embedding, head, positions, mtp, selection_bias;
};

}  // namespace

// Counted by transformers' classes at full size; the multi-token prediction of DeepSeek V3 from the shapes of its files.
TEST(models, parameter_counts_are_those_of_the_published_models) {
  const std::vector<Row> rows{
      {"llama2-7b", 6738415616, 6738415616, 0, 131072000, 131072000, 0, 0, 0},
      {"llama2-13b", 13015864320, 13015864320, 0, 163840000, 163840000, 0, 0, 0},
      {"llama2-70b", 68976648192, 68976648192, 0, 262144000, 262144000, 0, 0, 0},
      {"llama3-8b", 8030261248, 8030261248, 0, 525336576, 525336576, 0, 0, 0},
      {"llama3-70b", 70553706496, 70553706496, 0, 1050673152, 1050673152, 0, 0, 0},
      {"llama3-405b", 405853388800, 405853388800, 0, 2101346304, 2101346304, 0, 0, 0},
      {"llama3.1-8b", 8030261248, 8030261248, 0, 525336576, 525336576, 0, 0, 0},
      {"llama3.1-70b", 70553706496, 70553706496, 0, 1050673152, 1050673152, 0, 0, 0},
      {"llama3.1-405b", 405853388800, 405853388800, 0, 2101346304, 2101346304, 0, 0, 0},
      {"llama3.3-70b", 70553706496, 70553706496, 0, 1050673152, 1050673152, 0, 0, 0},
      {"llama4-17b-16e", 108641793536, 17172894720, 871932416, 1034485760, 1034485760, 0, 0, 0},
      {"llama4-17b-128e", 401583781376, 17184691200, 871932416, 1034485760, 1034485760, 0, 0, 0},
      {"mistral-7b", 7241732096, 7241732096, 0, 131072000, 131072000, 0, 0, 0},
      {"mixtral-8x7b", 46702792704, 12879925248, 0, 131072000, 131072000, 0, 0, 0},
      {"mixtral-8x22b", 140630071296, 39161468928, 0, 201326592, 201326592, 0, 0, 0},
      {"gemma-2b", 2506172416, 2506172416, 0, 524288000, 0, 0, 0, 0},
      {"gemma-7b", 8537680896, 8537680896, 0, 786432000, 0, 0, 0, 0},
      {"gemma2-2b", 2614341888, 2614341888, 0, 589824000, 0, 0, 0, 0},
      {"gemma2-9b", 9241705984, 9241705984, 0, 917504000, 0, 0, 0, 0},
      {"gemma2-27b", 27227128320, 27227128320, 0, 1179648000, 0, 0, 0, 0},
      {"gemma3-4b", 4300079472, 3880263168, 419816304, 671252480, 0, 0, 0, 0},
      {"gemma3-12b", 12187325040, 11766034176, 421290864, 1006878720, 0, 0, 0, 0},
      {"gemma3-27b", 27432406640, 27009346304, 423060336, 1409630208, 0, 0, 0, 0},
      {"deepseek2-16b", 15706484224, 2661150208, 0, 209715200, 209715200, 0, 0, 0},
      {"deepseek2-236b", 235741434880, 21375800320, 0, 524288000, 524288000, 0, 0, 0},
      {"deepseek3-671b", 671026404352, 37552282624, 0, 926679040, 926679040, 0, 11610067968, 14848},
      {"deepseek-r1-671b", 671026404352, 37552282624, 0, 926679040, 926679040, 0, 11610067968, 14848},
      {"qwen3-0.6b", 596049920, 596049920, 0, 155582464, 0, 0, 0, 0},
      {"qwen3-1.7b", 1720574976, 1720574976, 0, 311164928, 0, 0, 0, 0},
      {"qwen3-4b", 4022468096, 4022468096, 0, 388956160, 0, 0, 0, 0},
      {"qwen3-8b", 8190735360, 8190735360, 0, 622329856, 622329856, 0, 0, 0},
      {"qwen3-14b", 14768307200, 14768307200, 0, 777912320, 777912320, 0, 0, 0},
      {"qwen3-32b", 32762123264, 32762123264, 0, 777912320, 777912320, 0, 0, 0},
      {"qwen3-30b-a3b", 30532122624, 3353032704, 0, 311164928, 311164928, 0, 0, 0},
      {"qwen3-235b-a22b", 235093634560, 22190763520, 0, 622329856, 622329856, 0, 0, 0},
      {"qwen3-480b-a35b", 480154875392, 35474765312, 0, 933494784, 933494784, 0, 0, 0},
      {"gpt-oss-20b", 20914757184, 4187440704, 0, 579133440, 579133440, 0, 0, 0},
      {"gpt-oss-120b", 116829156672, 5711982912, 0, 579133440, 579133440, 0, 0, 0},
      {"gpt3-52k", 52464, 52464, 0, 16384, 0, 32768, 0, 0},
      {"gpt3-6b", 5588736000, 5588736000, 0, 100663296, 0, 50331648, 0, 0},
      {"gpt3-22b", 22049107968, 22049107968, 0, 201326592, 0, 100663296, 0, 0},
      {"gpt3-175b", 174780997632, 174780997632, 0, 618135552, 0, 201326592, 0, 0},
  };
  EXPECT_EQ(rows.size(), 42u);
  for (const Row& row : rows) {
    const ModelConfig config = find_model_config(row.name, "configs/models");
    const ParameterCounts counts = count_parameters(config);
    EXPECT_EQ(counts.total, row.total);
    EXPECT_EQ(counts.active, row.active);
    EXPECT_EQ(counts.vision, row.vision);
    EXPECT_EQ(counts.embedding, row.embedding);
    EXPECT_EQ(counts.head, row.head);
    EXPECT_EQ(counts.positions, row.positions);
    EXPECT_EQ(counts.mtp, row.mtp);
    EXPECT_EQ(counts.selection_bias, row.selection_bias);
    const int64_t mtp_bias = config.mtp_layers * (row.selection_bias > 0 ? config.moe->num_experts : 0);
    EXPECT_EQ(num_elements(model_parameters(config)), row.total - row.vision + row.mtp + row.selection_bias + mtp_bias);
  }
}

TEST(models, parameter_counts_of_our_own_sizes) {
  const std::vector<std::pair<std::string, int64_t>> rows{{"tiny", 131392},
                                                          {"mini", 5770496},
                                                          {"small", 23910048},
                                                          {"base", 124668672},
                                                          {"mistral-7b-v0.1", 7241732096},
                                                          {"mistral-7b-v0.3", 7248023552}};
  for (const auto& [name, count] : rows) {
    const ModelConfig config = find_model_config(name, "configs/models");
    EXPECT_EQ(config.name, name);
    EXPECT_EQ(count_parameters(config).total, count);
    EXPECT_EQ(num_elements(model_parameters(config)), count);
  }
  EXPECT_EQ(model_names("configs/models").size(), rows.size() + 42);
}

}  // namespace mw
