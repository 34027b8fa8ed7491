#include "ir/layer_scope.h"

#include "runner.h"

namespace mw {

TEST(ir, layer_scopes) {
  const auto query = parse_layer_scope("layers.13.attention.query");
  EXPECT(query && query->layer == 13 && query->part == "attention.query");
  const auto layer = parse_layer_scope("reference.layers.0");
  EXPECT(layer && layer->layer == 0 && layer->part.empty());
  for (const char* outside : {"", "head", "layers", "layers.", "layers.x.mlp", "layers.-1", "layers.3x", "sublayers.3.mlp"})
    EXPECT(!parse_layer_scope(outside));
}

}  // namespace mw
