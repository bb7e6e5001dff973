[.[] | {name: "item \(.id)", tags: (.tags | map(ascii_upcase) | sort), sum: (.values | add)}]
| group_by(.sum % 97) | map({key: (.[0].sum % 97 | tostring), value: map(.name)}) | from_entries
| [keys[] as $k | .[$k] | length] | add, length
