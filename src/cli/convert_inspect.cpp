#include <nlohmann/json.hpp>
#include <set>

#include "cli_options.h"
#include "convert_commands.h"
#include "ee/base/text.h"
#include "ee/checkpoint/model_folder.h"
#include "ee/checkpoint/tensor_files.h"
#include "ee/tokenizer/tokenizer.h"

namespace ee::cli {
using Json = nlohmann::ordered_json;
using checkpoint::ModelFolder;
using checkpoint::TensorFiles;

namespace {

struct Size {
  int64_t parameters = 0, bytes = 0;
  std::set<std::string> dtypes;

  void add(const format::TensorView& view) {
    bytes += static_cast<int64_t>(view.bytes.size());
    parameters += static_cast<int64_t>(view.bytes.size() / format::size_of(view.dtype));
    dtypes.emplace(format::to_string(view.dtype));
  }
  std::string dtype() const {
    return base::join(std::vector<std::string>(dtypes.begin(), dtypes.end()), "+");
  }
};

Json describe_exit(const ModelFolder& folder, const config::ExitSpec& spec) {
  Size size;
  exits::ExitHead exit;
  exit.spec = spec;
  exits::visit_exit(folder.config(), exit, [&](const std::string& name, const auto&, at::Tensor&) {
    size.add(folder.exit_files().at(name));
  });
  return {{"layer", spec.layer},
          {"position", config::to_string(spec.position)},
          {"kind", config::to_string(spec.kind)},
          {"head", config::to_string(spec.head)},
          {"norm", config::to_string(spec.norm)},
          {"translator", config::to_string(spec.translator)},
          {"weight", spec.weight},
          {"temperature", spec.temperature},
          {"parameters", size.parameters},
          {"bytes", size.bytes},
          {"dtype", size.dtype()}};
}

Json describe_tokenizer(const std::filesystem::path& folder) {
  const bool json = std::filesystem::exists(folder / "tokenizer.json");
  if (!json && !std::filesystem::exists(folder / "tokenizer.model")) return nullptr;
  const auto tokenizer = tokenizer::Tokenizer::load(folder);
  return {{"kind", json ? "byte-level BPE" : "SentencePiece"},
          {"vocab_size", tokenizer->vocab_size()},
          {"chat_template", !tokenizer->chat_template().source.empty()}};
}

// The digest of all of them; null: there are none.
Json describe_checksums(const ModelFolder& folder) {
  return folder.has_exits() && folder.exits().checksums ? Json(folder.exits().checksums->digest()) : Json();
}

Json describe(const std::filesystem::path& path) {
  const ModelFolder folder = ModelFolder::open(path, checkpoint::Check::never);
  const config::ModelConfig& config = folder.config();
  Size size;
  for (const auto& [name, file] : folder.backbone_files().names()) size.add(folder.backbone_files().at(name));
  Json json = {{"path", path.string()},
               {"model_type", config.model_type},
               {"layers", config.layers},
               {"hidden_size", config.hidden_size},
               {"heads", config.heads},
               {"kv_heads", config.kv_heads},
               {"vocab_size", config.vocab_size},
               {"max_positions", config.max_positions},
               {"window", config.window == 0 ? Json() : Json(config.window)},
               {"tied_head", config.tie_embeddings},
               {"parameters", size.parameters},
               {"bytes", size.bytes},
               {"dtype", size.dtype()},
               {"fingerprint", checkpoint::fingerprint(folder.backbone_files())},
               {"checksums", describe_checksums(folder)},
               {"tokenizer", describe_tokenizer(path)},
               {"exits", Json::array()}};
  if (folder.has_exits())
    for (const auto& spec : folder.exits().exits) json["exits"].push_back(describe_exit(folder, spec));
  return json;
}

std::string size_text(const Json& of) {
  return fmt::format("{} parameters, {} {}", base::format_count(of["parameters"].get<double>()),
                     base::format_bytes(of["bytes"].get<double>()), of["dtype"].get<std::string>());
}

void print_for_people(const Json& model) {
  const auto text = [](const Json& object, const char* key) { return object[key].get<std::string>(); };
  fmt::print("{}\n", text(model, "path"));
  fmt::print(
      "  model      {}: {} layers, hidden {}, {} heads ({} KV), vocabulary {}, {} positions{}, {} head\n",
      text(model, "model_type"), model["layers"].get<int64_t>(), model["hidden_size"].get<int64_t>(),
      model["heads"].get<int64_t>(), model["kv_heads"].get<int64_t>(), model["vocab_size"].get<int64_t>(),
      model["max_positions"].get<int64_t>(),
      model["window"].is_null()
          ? ""
          : fmt::format(" (texts of up to {}: sliding_window)", model["window"].get<int64_t>()),
      model["tied_head"].get<bool>() ? "tied" : "own");
  fmt::print("  backbone   {}, fingerprint {}\n", size_text(model), text(model, "fingerprint"));
  if (const Json& checksums = model["checksums"]; !checksums.is_null())
    fmt::print("  checksums  digest {}; ee-convert verify compares every byte\n",
               checksums.get<std::string>());
  const Json& tokenizer = model["tokenizer"];
  if (tokenizer.is_null())
    fmt::print("  tokenizer  none\n");
  else
    fmt::print("  tokenizer  {}, {} tokens, {} chat template\n", text(tokenizer, "kind"),
               tokenizer["vocab_size"].get<int64_t>(),
               tokenizer["chat_template"].get<bool>() ? "with" : "no");
  for (const Json& exit : model["exits"])
    fmt::print(
        "  exit       {} layer {}: {}, head {}, norm {}, translator {}, weight {}, temperature {}; {}\n",
        text(exit, "position"), exit["layer"].get<int64_t>(), text(exit, "kind"), text(exit, "head"),
        text(exit, "norm"), text(exit, "translator"), exit["weight"].get<double>(),
        exit["temperature"].get<double>(), size_text(exit));
  if (model["exits"].empty()) fmt::print("  exits      none; attach some with ee-convert attach\n");
}

}  // namespace

int convert_inspect(const std::vector<std::string>& args) {
  std::string folder;
  bool json = false;
  CommandLine line("ee-convert inspect DIR [--json]",
                   "Shows what a model folder holds: structure, parameters, exits, tokenizer.");
  line.positional("DIR", folder, "model folder, with or without exits")
      .flag("json", json, "print one JSON object");
  if (!line.parse(args)) return 0;
  const Json model = describe(folder);
  if (json)
    fmt::print("{}\n", model.dump(2));
  else
    print_for_people(model);
  return 0;
}

}  // namespace ee::cli
