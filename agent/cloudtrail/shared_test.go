package cloudtrail

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/gzip"
)

// sharedData returns the folder of published CloudTrail logs, which are not
// part of this repository, or skips the test.
func sharedData(t testing.TB) string {
	dir := os.Getenv("TRAILPOLL_SHARED_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("published CloudTrail logs are not at hand (TRAILPOLL_SHARED_DATA): %v", err)
	}
	return dir
}

// invictus returns 55 real objects, inflated.
func invictus(t testing.TB) map[string][]byte {
	files, err := filepath.Glob(filepath.Join(sharedData(t), "invictus-ir_aws_dataset", "CloudTrail", "*.json"))
	if err != nil || len(files) != 55 {
		t.Fatalf("%d files, want 55 (%v)", len(files), err)
	}
	objects := map[string][]byte{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		objects[filepath.Base(f)] = data
	}
	return objects
}

func TestInvariant7_RealRecords(t *testing.T) {
	var f Inflater
	var s Splitter
	total := 0
	for name, data := range invictus(t) {
		key := "AWSLogs/218007301253/CloudTrail/us-east-1/2023/07/10/" + name + ".gz"
		if _, class := parse("", key); class != Log {
			t.Errorf("%s is %v", key, class)
		}
		var envelope struct{ Records []json.RawMessage }
		if err := json.Unmarshal(data, &envelope); err != nil {
			t.Fatal(err)
		}
		elements, ok := oracleSplit(data)
		if !ok || len(elements) != len(envelope.Records) {
			t.Fatalf("%s: %d records, %d to jsontext", name, len(envelope.Records), len(elements))
		}
		packed := deflate(data)
		inflated, err := f.Inflate(nil, bytes.NewReader(packed), limits(packed))
		if err != nil {
			t.Fatal(err)
		}
		s.Reset(inflated, 1<<20)
		steps := walk(t, &s)
		f.Reset(bytes.NewReader(packed), limits(packed))
		s.ResetReader(&f, 1<<20)
		if text(walk(t, &s)) != text(steps) {
			t.Errorf("%s: another thing when streamed", name)
		}
		if len(steps) != len(elements)+1 || !steps[len(elements)].end {
			t.Fatalf("%s: %d records, want %d", name, len(steps)-1, len(elements))
		}
		at := 0
		for i, v := range elements {
			id, _, when := oracleMembers(v)
			if s := steps[i]; s.raw != string(v) || s.raw != string(envelope.Records[i]) || s.id != id || s.at != when || len(id) != 36 || len(when) != 20 {
				t.Fatalf("%s: record %d is %s, want %s", name, i, s, v)
			}
			n := bytes.Index(data[at:], []byte(steps[i].raw))
			if n < 0 {
				t.Fatalf("%s: record %d is not in the file", name, i)
			}
			at += n + len(v)
		}
		total += len(elements)
	}
	if total != 2900 {
		t.Errorf("%d records, want 2900", total)
	}
}

// Whatever else is published as JSON, log or not, agrees with jsontext.
func TestOtherRealFiles(t *testing.T) {
	n, records := 0, 0
	err := filepath.WalkDir(sharedData(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, "invictus") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, ".gz") {
			var f Inflater
			inflated, err := f.Inflate(nil, bytes.NewReader(data), limits(data))
			z, zerr := gzip.NewReader(bytes.NewReader(data))
			if zerr != nil {
				return zerr
			}
			if all, zerr := io.ReadAll(z); err == nil && (zerr != nil || !bytes.Equal(all, inflated)) {
				t.Errorf("%s: %d bytes, want %d", path, len(inflated), len(all))
			} else if err != nil && !isReason(err, "trailing-data") {
				t.Errorf("%s: %v", path, err)
			}
			data = inflated
		}
		for _, doc := range [][]byte{data, jsonLines(data)} {
			checkSplit(t, doc)
			steps := walkBytes(t, doc, 1<<20)
			records += len(steps) - 1
			if elements, ok := oracleSplit(doc); ok && len(elements) != len(steps)-1 {
				t.Errorf("%s: %d records, want %d", path, len(steps)-1, len(elements))
			}
		}
		n++
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if n < 50 || records < 300 {
		t.Errorf("%d files with %d records", n, records)
	}
}

// jsonLines makes one array of one value a line, where that is what data is.
func jsonLines(data []byte) []byte {
	var v []string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if !jsontext.Value(line).IsValid() {
			return nil
		}
		v = append(v, line)
	}
	return []byte("[" + strings.Join(v, ",") + "]")
}

func BenchmarkSplitReal(b *testing.B) {
	var all []byte
	for _, data := range invictus(b) {
		data = bytes.TrimSuffix(bytes.TrimPrefix(bytes.TrimSpace(data), []byte(`{"Records":[`)), []byte(`]}`))
		if len(all) > 0 {
			all = append(all, ',')
		}
		all = append(all, data...)
	}
	all = []byte(`{"Records":[` + string(all) + `]}`)
	b.SetBytes(int64(len(all)))
	b.ReportAllocs()
	var s Splitter
	for b.Loop() {
		s.Reset(all, 1<<20)
		for {
			if _, err := s.Next(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}
