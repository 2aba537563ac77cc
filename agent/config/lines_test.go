package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestLineIndex(t *testing.T) {
	const text = "\xef\xbb\xbf# comment = 1\r\n" + // 1
		"top = 'a # b' # [no]\r\n" + // 2
		"[a.b]\n" + // 3
		"x.y = \"\"\"\n" + // 4
		"z = 1 \\\" \"\" \n" + // 5
		"[fake]\"\"\"\n" + // 6
		"list = [ # ]\n" + // 7
		"  '''''it's''''',\n" + // 8
		"  { m = 1, \"n\\u0041\\t\" = [2] },\n" + // 9
		"]\n" + // 10
		"[[t]]\n" + // 11
		"[t.sub]\n" + // 12
		"k = 1979-05-27 07:32:00\n" + // 13
		"[[t]]\n" + // 14
		"[[t.u]]\n" + // 15
		"[[t.u]]\n" + // 16
		"\"k\" = \"\\\"]\"\n" // 17
	want := map[string]int{
		"top": 2, "a": 3, "a.b": 3, "a.b.x": 4, "a.b.x.y": 4,
		"a.b.list": 7, "a.b.list[0]": 8, "a.b.list[1]": 9, "a.b.list[1].m": 9,
		`a.b.list[1]."nA\t"`: 9, `a.b.list[1]."nA\t"[0]`: 9,
		"t": 11, "t[0]": 11, "t[0].sub": 12, "t[0].sub.k": 13,
		"t[1]": 14, "t[1].u": 15, "t[1].u[0]": 15, "t[1].u[1]": 16, "t[1].u[1].k": 17,
	}
	if _, err := decodeTOML(text); err != nil {
		t.Fatal(err)
	}
	got := lineIndex([]byte(text))
	if !maps.Equal(got, want) {
		for _, k := range slices.Sorted(maps.Keys(got)) {
			t.Logf("%s: %d", k, got[k])
		}
		t.Fatal("not what stands in the document")
	}
}

// paths returns the path of everything in a decoded document.
func paths(at string, v any, depth int, all *[]string) (deepest int) {
	if at != "" {
		*all = append(*all, at)
	}
	deepest = depth
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			deepest = max(deepest, paths(child(at, k), e, depth+1, all))
		}
	case []map[string]any:
		for i, e := range v {
			deepest = max(deepest, paths(item(at, i), e, depth+1, all))
		}
	case []any:
		for i, e := range v {
			deepest = max(deepest, paths(item(at, i), e, depth+1, all))
		}
	}
	return deepest
}

// In whatever the library accepts, everything has its line; and whatever it
// does not accept, the scanner comes to an end.
func FuzzLineIndex(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("a.'b'.\"c\\n\" = [[1], {x.y = 2}, \"\"\"\n\\\"\"\"\"\"\"]\n[[q]]\n[q.r]\n[[q.s]]\na=1"))
	f.Add([]byte("x = [\n{a = 1,\n b = 2 # c\n,}]\r\n"))
	f.Add([]byte("[[[[[[[[[[[[[[[[[[[[[[[["))
	f.Add([]byte("a = [[[[[[[[[[[[[[[[[[[[ '#' ]]]]]]]]]]]]]]]]]]]]\nb = 1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := lineIndex(data)
		root, err := decodeTOML(string(data))
		if err != nil {
			return
		}
		var all []string
		if paths("", root, 0, &all) > maxDepth {
			return
		}
		most := strings.Count(string(data), "\n") + 1
		for _, p := range all {
			if n := lines[p]; n < 1 || n > most {
				t.Fatalf("%s: line %d of %d", p, n, most)
			}
		}
	})
}

// In a document in which every key is called by its line, the scanner finds
// that line.
func TestLineIndexFindsTheLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		line := 1
		write := func(s string) {
			b.WriteString(s)
			line += strings.Count(s, "\n")
		}
		want := map[string]int{}
		table := ""
		tables := 0
		for range rapid.IntRange(1, 20).Draw(t, "lines") {
			end := rapid.SampledFrom([]string{"\n", "\r\n", " # it's [a] \"comment\n", "\n\n#\n"}).Draw(t, "end")
			name := "k" + strconv.Itoa(line)
			path := child(table, name)
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0:
				table = name
				write("[ " + name + " ]" + end)
			case 1:
				table = item("many", tables)
				tables++
				write("[[many]]" + end)
			case 2:
				want[child(path, "x")] = line
				write(name + ".x = '''\n\\''[[no]]\n'k = 1'''" + end)
			case 3:
				want[path] = line
				write(name + " = [ # [\n 'a,]',\n")
				want[item(path, 1)] = line
				write("{ \"}\" = 1, z = [1,2] }, ]" + end)
			case 4:
				want[path] = line
				write(name + ` = """ \""" # \\` + "\n \\\n" + ` " "" """""` + end)
			default:
				want[path] = line
				write(name + " = " + rapid.SampledFrom([]string{
					"1", "true", "1e6", `"\" # ]"`, `'\'`, "2026-11-01 06:00:00Z", "''", `""`,
				}).Draw(t, "value") + end)
			}
		}
		if _, err := decodeTOML(b.String()); err != nil {
			t.Fatalf("%v in\n%s", err, b.String())
		}
		got := lineIndex([]byte(b.String()))
		for path, n := range want {
			if got[path] != n {
				t.Fatalf("%s: %d, want %d, in\n%s", path, got[path], n, b.String())
			}
		}
	})
}
