// What llama.cpp's common/chat makes of the answers of the families beside this file: reference.json. Built against the sources and the
// libraries of the pinned llama-cpp-sys-2 (`common`, `include`, `ggml/include`, `vendor` as include paths; libllama-common,
// libllama-common-base, libllama, ggml's, and what is in the build's `vendor`), it reads the families as one JSON object
// (`python3 -c 'import tomllib, json, pathlib as p; print(json.dumps({f.stem: tomllib.loads(f.read_text()) for f in p.Path(".").glob("*.toml")}))'`)
// from its first argument, and the tools from the second.
#include "chat.h"
#include "json.h"
#include "log.h"

#include <fstream>
#include <iostream>
#include <sstream>

static common_json read(const common_chat_params & params, const std::string & answer, bool partial) {
    common_chat_parser_params parse(params);
    parse.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
    if (!params.parser.empty()) parse.parser.load(params.parser);
    common_json out = common_json::object();
    try {
        const common_chat_msg message = common_chat_parse(answer, partial, parse);
        out["thought"] = message.reasoning_content;
        out["text"] = message.content;
        common_json calls = common_json::array();
        for (const auto & call : message.tool_calls) {
            common_json one = common_json::object();
            one["name"] = call.name;
            one["arguments"] = call.arguments;
            one["id"] = call.id;
            calls.push_back(one);
        }
        out["calls"] = calls;
    } catch (const std::exception & e) {
        out["error"] = std::string(e.what());
    }
    return out;
}

int main(int, char ** argv) {
    common_log_set_verbosity_thold(-1);
    std::stringstream text;
    text << std::ifstream(argv[1]).rdbuf();
    common_json families = common_json::parse(text.str());
    std::stringstream tools_text;
    tools_text << std::ifstream(argv[2]).rdbuf();
    const auto tools = common_chat_tools_parse_oaicompat(common_json::parse(tools_text.str()));
    common_json out = common_json::object();
    for (const auto & item : families.items()) {
        common_json found = common_json::object();
        try {
            auto templates = common_chat_templates_init(nullptr, item.value().at("template").get<std::string>(), "", item.value().at("eos").get<std::string>());
            common_chat_templates_inputs inputs;
            common_chat_msg user;
            user.role = "user";
            user.content = "Go";
            inputs.messages = { user };
            inputs.tools = tools;
            inputs.parallel_tool_calls = true;
            inputs.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
            const auto params = common_chat_templates_apply(templates.get(), inputs);
            found["format"] = std::string(common_chat_format_name(params.format));
            found["prompt_end"] = params.generation_prompt;
            for (const auto & say : item.value().at("says").items()) {
                found[say.key()] = read(params, say.value().get<std::string>(), say.key() == "cut");
            }
        } catch (const std::exception & e) {
            found["error"] = std::string(e.what());
        }
        out[item.key()] = found;
    }
    std::cout << out.dump(1) << std::endl;
}
