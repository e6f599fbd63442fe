
# Where a MODEL stands, right after the command: the names that `airrun list` knows, and files.
complete -c airrun -n "__fish_airrun_using_subcommand COMMANDS; and test (count (commandline -opc)) -eq 2" -a "(airrun list --names 2>/dev/null)" -d 'Model'
