package checkpoint

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trailpoll/trailpoll/agent/progress"
)

const benchStreams = 850

var benchDay = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)

func benchLane(n int) progress.Lane {
	return progress.Lane{
		Source: "acme-cloudtrail-logs/",
		Stream: progress.Stream{
			Account: fmt.Sprintf("%012d", 111122223333+n/17), LogType: "CloudTrail",
			Region: fmt.Sprintf("eu-central-%d", n%17),
		},
		Output: "siem",
	}
}

// unique returns the 16 characters of the i-th name, always the same and in no order.
func unique(dst []byte, i uint64) []byte {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	a, b := i*0x9e3779b97f4a7c15+1, i^0x2545f4914f6cdd1d
	for range 8 {
		a, b = a^a>>29, b*0xbf58476d1ce4e5b9+11
		dst = append(dst, digits[a%62], digits[(b>>32)%62])
		a /= 62
	}
	return dst
}

// benchPosition returns the i-th of n positions of a day, ascending but for
// the last 16 characters.
func benchPosition(l *progress.Lane, day time.Time, i, n int, seed uint64) string {
	at := day.Add(time.Duration(i) * 24 * time.Hour / time.Duration(n)).Truncate(5 * time.Minute)
	b := at.AppendFormat(make([]byte, 0, 100), "2006/01/02/")
	b = append(append(b, l.Stream.Account...), '_')
	b = append(append(b, l.Stream.LogType...), '_')
	b = append(append(b, l.Stream.Region...), '_')
	b = at.AppendFormat(b, "20060102T1504Z_")
	b = unique(b, seed<<40|uint64(day.Unix()/86400)<<24|uint64(i))
	return string(append(b, suffix...))
}

// BenchmarkSettle settles objects over 850 streams, 500 in a commit, each with
// its lane's head. An operation is one object, synced.
func BenchmarkSettle(b *testing.B) {
	s, _ := open(b, b.TempDir(), Options{})
	lanes := make([]progress.Lane, benchStreams)
	for i := range lanes {
		lanes[i] = benchLane(i)
	}
	next := settleSource(lanes)
	b.ReportAllocs()
	for b.Loop() {
		if c := next(1); c != nil {
			if err := s.Commit(c); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "objects/s")
}

// settleSource makes Changes of 500 objects; called for one object, it returns
// nil 499 times.
func settleSource(lanes []progress.Lane) func(n int) *progress.Changes {
	r := rand.New(rand.NewPCG(1, 2))
	c := &progress.Changes{}
	heads := map[progress.Lane]string{}
	i, full := 0, false
	return func(int) *progress.Changes {
		if full {
			c, full = &progress.Changes{}, false
		}
		l := lanes[r.IntN(len(lanes))]
		// A day has a million objects, a lane 1176 of them.
		pos := benchPosition(&l, benchDay.AddDate(0, 0, i/1_000_000), i%1_000_000, 1_000_000, uint64(i))
		i++
		c.Settled = append(c.Settled, progress.ObjectSettled{Lane: l, Position: pos})
		heads[l] = max(heads[l], pos)
		if len(c.Settled) < 500 {
			return nil
		}
		seen := map[progress.Lane]bool{}
		for _, o := range c.Settled {
			if !seen[o.Lane] {
				seen[o.Lane] = true
				c.Heads = append(c.Heads, progress.LaneHead{Lane: o.Lane, Head: progress.Head{Watermark: heads[o.Lane]}})
			}
		}
		full = true
		return c
	}
}

// BenchmarkSettlePlain is the same work in the layout that suggests itself:
// the whole S3 key as key, nothing in front, no heads.
func BenchmarkSettlePlain(b *testing.B) {
	db, err := bolt.Open(filepath.Join(b.TempDir(), "plain.db"), 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket([]byte("settled"))
		return err
	}); err != nil {
		b.Fatal(err)
	}
	lanes := make([]progress.Lane, benchStreams)
	for i := range lanes {
		lanes[i] = benchLane(i)
	}
	next := settleSource(lanes)
	b.ReportAllocs()
	for b.Loop() {
		c := next(1)
		if c == nil {
			continue
		}
		if err := db.Update(func(tx *bolt.Tx) error {
			bucket := tx.Bucket([]byte("settled"))
			for _, o := range c.Settled {
				key := fmt.Sprintf("AWSLogs/%s/%s/%s/%s", o.Lane.Stream.Account, o.Lane.Stream.LogType,
					o.Lane.Stream.Region, o.Position)
				if err := bucket.Put([]byte(key), []byte{1}); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "objects/s")
}

// BenchmarkLookupPage looks up a page of 1000 positions among 850 lanes of
// 1176 objects a day. An operation is one page.
func BenchmarkLookupPage(b *testing.B) {
	for _, packed := range []bool{false, true} {
		b.Run(map[bool]string{false: "recent", true: "packed"}[packed], func(b *testing.B) {
			s, _ := open(b, b.TempDir(), Options{})
			var pages [][]string
			for n := range 100 {
				l := benchLane(n)
				var c progress.Changes
				var page []string
				for i := range 1176 {
					pos := benchPosition(&l, benchDay, i, 1176, uint64(n))
					c.Settled = append(c.Settled, progress.ObjectSettled{Lane: l, Position: pos})
					page = append(page, pos)
				}
				c.Heads = []progress.LaneHead{{Lane: l, Head: progress.Head{
					Watermark: benchPosition(&l, benchDay.AddDate(0, 0, 3), 0, 1, 0)}}}
				if err := s.Commit(&c); err != nil {
					b.Fatal(err)
				}
				pages = append(pages, page[:1000])
			}
			if packed {
				if err := s.Maintain(b.Context(), benchDay.AddDate(0, 0, 5)); err != nil {
					b.Fatal(err)
				}
			}
			var states []progress.State
			var err error
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				states, err = s.Lookup(benchLane(i%100), pages[i%100], states)
				if err != nil {
					b.Fatal(err)
				}
				if states[0].Standing != progress.Settled || states[999].Standing != progress.Settled {
					b.Fatal("not settled")
				}
				i++
			}
			b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "positions/s")
		})
	}
}
