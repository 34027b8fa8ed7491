#include "ir/layer_scope.h"

#include <charconv>

namespace mw {

std::optional<LayerScope> parse_layer_scope(std::string_view scope) {
  constexpr std::string_view kLayers = "layers.";
  for (size_t at = scope.find(kLayers); at != std::string_view::npos; at = scope.find(kLayers, at + 1)) {
    if (at > 0 && scope[at - 1] != '.') continue;
    const std::string_view rest = scope.substr(at + kLayers.size());
    LayerScope found{};
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), found.layer);
    const size_t length = static_cast<size_t>(end - rest.data());
    if (error != std::errc() || found.layer < 0 || (length < rest.size() && rest[length] != '.')) continue;
    if (length < rest.size()) found.part = rest.substr(length + 1);
    return found;
  }
  return std::nullopt;
}

}  // namespace mw
