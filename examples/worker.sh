#!/bin/sh
# A worker for asyncq: one shell that runs call after call. docs/protocol.md is what it follows.
# It needs no JSON tool: asyncq writes the members of a call always in the same order, so that quotes split it at fixed
# places. It takes numbers and texts without escapes, and refuses others; for those, hand the line to jq.
set -f # what is split into words is no pattern
functions='heavy_computing hello fails conflicts who'
heavy_computing() { echo $(($1 * $2)) >&4; } # descriptor 4 takes the value: JSON, on one line
hello() { printf 'Hello %s\n' "$1"; }
fails() { return 1; }
conflicts() { return 75; }
who() { asyncq whoami || :; } # which exits with 1 when there is nobody

say() { printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$1" "$2" >&3; }
error() { say "$id" '"error":{"code":'"$1"',"message":"'"$function: $2"'"}'; } # 75, 126, 127 are what they are for a command

run() { # WORD...: what stands between the quotes of a call, beginning after "args"
    args= IFS=':[, '
    while :; do # $1 stands before a text: numbers, commas, the bracket at the end
        case ${1#:\[} in *[[{]*) error 126 'an argument has structure'; return ;; esac
        for word in ${1%%]*}; do [ -z "$word" ] || args="$args$word\""; done
        case $1 in *]*) break ;; esac
        args="$args$2\"" && shift 2
    done
    case $args$6 in *\\*) error 126 'a text has escapes'; return ;; esac
    [ "$3" = ':{},' ] || { error 126 'keyword arguments'; return; }
    unset ASYNCQ_PRINCIPAL; [ "$5" != : ] || export ASYNCQ_PRINCIPAL="$6"
    IFS='"'; set -- $args; unset IFS
    # A subshell, as some errors end a shell; without descriptor 3, as only answers belong there.
    { value=$("$function" "$@" 4>&1 >&5 5>&- 3>&-); } 5>&1
    code=$?; [ "$code" = 0 ] || { error "$code" "exit code $code"; return; }
    say "$id" '"result":{'"${value:+\"value\":$value}}"
}

say 0 '"method":"hello","params":{"protocol":1,"worker":"worker.sh"}'
while IFS= read -r line <&3; do
    IFS='"'; set -- $line
    [ "${10}" = call ] || continue # nor can a notification have it as its tenth word
    id=${7#:} id=${id%,} job=${15#:} function=${28}; export ASYNCQ_JOB="${job%,}" ASYNCQ_TOKEN="${20}"
    case " $functions " in *" $function "*) shift 30; run "$@" ;; *) error 127 'no such function' ;; esac
done
