_asyncq() {
    # bash splits words at `=` and `:` too. asyncq wants them whole, and bash wants back what comes after the last of them.
    local rest=$COMP_LINE words=() at=-1 i word
    for i in "${!COMP_WORDS[@]}"; do
        word=${COMP_WORDS[i]}
        ((i == COMP_CWORD)) && [[ $word != [=:]* ]] && word=$2
        if ((at >= 0)) && [[ -n ${COMP_WORDS[i]} && $rest != [[:space:]]* ]]; then
            words[at]+=$word
        else
            words[++at]=$word
        fi
        ((i == COMP_CWORD)) && break
        rest=${rest#*"${COMP_WORDS[i]}"}
    done
    mapfile -t COMPREPLY < <(COMPLETE=bash PROGRAM -- "${words[@]}" 2> /dev/null)
    COMPREPLY=("${COMPREPLY[@]#"${words[at]%"$2"}"}")
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/=] ]] && compopt -o nospace
}
complete -o bashdefault -o nosort -F _asyncq asyncq
