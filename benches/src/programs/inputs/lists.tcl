# Dictionaries, lists, string building.
set words [dict create]
for {set i 1} {$i <= [lindex $argv 0]} {incr i} {
    dict lappend words word[expr {$i * 7919 % 20011}] $i
}
set lines {}
dict for {name places} $words { lappend lines "$name: [join $places ,]" }
set text [join [lsort $lines] "\n"]
puts "[dict size $words] [string length $text] [regexp -all {word1[0-9]*:} $text]"
