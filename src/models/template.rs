//! Ollama's templates are written in Go's language, which airrun does not render. Where a file has no template of its own, the
//! marks in Ollama's say which of the known forms of a chat it is; the form is then used as Jinja. Unknown ones are not guessed.

/// A form: the marks that tell it, and its template.
struct Form {
    marks: &'static [&'static str],
    jinja: &'static str,
}

/// The forms in the order in which they are tried: the more marks, the earlier.
const FORMS: [Form; 8] = [
    Form {
        marks: &["<|im_start|>", "<|im_end|>"],
        jinja: "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
            {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    },
    Form {
        marks: &["<|start_header_id|>", "<|eot_id|>"],
        jinja: "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n\
            {{ m.content }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}\
            <|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    },
    Form {
        marks: &["<start_of_turn>", "<end_of_turn>"],
        jinja: "{% set ns = namespace(first='') %}{% for m in messages %}{% if m.role == 'system' %}\
            {% set ns.first = m.content + '\n\n' %}{% else %}<start_of_turn>\
            {{ 'model' if m.role == 'assistant' else 'user' }}\n\
            {% if m.role == 'user' %}{{ ns.first }}{% set ns.first = '' %}{% endif %}\
            {{ m.content }}<end_of_turn>\n{% endif %}{% endfor %}\
            {% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    },
    Form {
        marks: &["<|user|>", "<|end|>"],
        jinja: "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}\
            {% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    },
    Form {
        marks: &["<|user|>", "</s>"],
        jinja: "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}\
            {% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    },
    Form {
        marks: &["[INST]", "[/INST]"],
        jinja: "{% set ns = namespace(first='') %}{% for m in messages %}{% if m.role == 'system' %}\
            {% set ns.first = m.content + '\n\n' %}{% elif m.role == 'user' %}\
            [INST] {{ ns.first }}{{ m.content }} [/INST]{% set ns.first = '' %}\
            {% else %} {{ m.content }}</s>{% endif %}{% endfor %}",
    },
    Form {
        marks: &["### Instruction:", "### Response:"],
        jinja: "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n\
            {% elif m.role == 'user' %}### Instruction:\n{{ m.content }}\n\n\
            {% else %}### Response:\n{{ m.content }}\n\n{% endif %}{% endfor %}\
            {% if add_generation_prompt %}### Response:\n{% endif %}",
    },
    Form {
        marks: &["USER:", "ASSISTANT:"],
        jinja: "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\
            {% elif m.role == 'user' %}USER: {{ m.content }}\n\
            {% else %}ASSISTANT: {{ m.content }}</s>\n{% endif %}{% endfor %}\
            {% if add_generation_prompt %}ASSISTANT:{% endif %}",
    },
];

/// The Jinja template of the form that `go` has; `None` for forms that are not known.
pub(super) fn known_form(go: &str) -> Option<&'static str> {
    FORMS.iter().find(|f| f.marks.iter().all(|m| go.contains(m))).map(|f| f.jinja)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_by_their_marks() {
        let llama3 = "<|start_header_id|>user<|end_header_id|>\n\n{{ .Prompt }}<|eot_id|>";
        assert!(known_form(llama3).unwrap().contains("start_header_id"));
        let phi = "<|user|>\n{{ .Prompt }}<|end|>\n<|assistant|>";
        assert!(known_form(phi).unwrap().contains("<|end|>"));
        assert!(known_form("[INST] {{ .Prompt }} [/INST]").unwrap().contains("[INST]"));
        assert_eq!(known_form("{{ .Prompt }}"), None);
        assert_eq!(known_form(""), None);
    }
}
