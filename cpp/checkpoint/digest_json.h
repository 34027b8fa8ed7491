// {"path": {"bytes": 12, "xxh64": "ef46db3751d8e999"}}: as in manifest.json and trainer.json. For .cpp files of this room.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "checkpoint/manifest.h"

namespace mw {

nlohmann::ordered_json digests_to_json(const FileDigests& files);
FileDigests digests_from_json(const nlohmann::json& value, const std::string& where);  // UserError

}  // namespace mw
