
# Where a MODEL stands: the names that `airrun list` knows, and files.
_airrun_models() {
    local -a names=(${(f)"$(_call_program models airrun list --names 2>/dev/null)"})
    _alternative 'models:model:compadd -a names' 'files:file:_files'
}
