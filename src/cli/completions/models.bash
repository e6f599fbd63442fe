
# Where a MODEL stands, right after the command: the names that `airrun list` knows, and files.
_airrun_models() {
    _airrun "$@"
    local line=${COMP_LINE:0:COMP_POINT} word before= name
    [[ $line =~ ^[[:space:]]*[^[:space:]]+[[:space:]]+(COMMANDS)[[:space:]]+([^-[:space:]][^[:space:]]*)?$ ]] || return 0
    word=${BASH_REMATCH[2]}
    COMPREPLY=()
    # What is quoted is left to the shell.
    [[ $word == *[\"\'\`\\~$]* ]] && return 0
    # The shell takes what stands before a colon for a word of its own.
    [[ $COMP_WORDBREAKS == *:* ]] && before=${word%"${word##*:}"}
    while IFS= read -r name; do
        [[ $name == "$word"* ]] && COMPREPLY+=("${name#"$before"}")
    done < <("$1" list --names 2>/dev/null; compgen -f -- "$word")
    compopt -o filenames 2>/dev/null
    return 0
}
complete -F _airrun_models -o bashdefault -o default airrun
