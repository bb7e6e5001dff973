<?php
// Arrays of arrays, strings, JSON.
$words = [];
for ($i = 1; $i <= (int) $argv[1]; $i++) {
    $words["word" . ($i * 7919 % 20011)][] = ["place" => $i, "text" => str_repeat("x", $i % 40)];
}
ksort($words);
$text = json_encode($words);
$again = json_decode($text, true);
echo count($again), " ", strlen($text), " ", md5($text), " ", $again == $words ? "same" : "differs", "\n";
