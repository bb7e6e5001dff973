# Hashes, arrays of strings, a struct for each line.
Line = Struct.new(:name, :places)
words = {}
(1..ARGV[0].to_i).each do |i|
  name = "word#{i * 7919 % 20011}"
  (words[name] ||= Line.new(name, [])).places << i.to_s
end
lines = words.values.sort_by(&:name).map { |line| "#{line.name}: #{line.places.join(',')}" }
puts lines.size, lines.join("\n").gsub(/1(\d)/, '\1').sum
