package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/cloudtrail"
	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/plan"
	"github.com/trailpoll/trailpoll/agent/record"
	"github.com/trailpoll/trailpoll/installer/aws"
)

func root(prefix string) string { return cloudtrail.Root(prefix) }

const (
	// silent is when a region is worth a word that has been quiet while others
	// were not. CloudTrail delivers about every five minutes, and nothing at all
	// where nothing happens.
	silent = 24 * time.Hour
	// stale is when it is worth one that nothing at all has come.
	stale = time.Hour
	// largest is what is read to the end, in bytes as stored.
	largest = 16 << 20
	// named is how many things of one kind are named one by one.
	named = 5
	// surveyTime is how long the look at all streams may take.
	surveyTime = 2 * time.Minute
)

// tree looks at all streams, and where there are none, for where they might be.
func (s *Source) tree(x *part, setup *aws.Setup) Survey {
	tried := "looked for streams below " + s.where()
	if s.Survey == nil {
		x.skip("tree", tried, "not asked for")
		return Survey{}
	}
	ctx, cancel := context.WithTimeout(x.ctx, surveyTime)
	defer cancel()
	found, err := s.Survey(ctx)
	switch {
	case err != nil && x.ctx.Err() == nil && ctx.Err() != nil:
		x.warn("tree", tried, fmt.Sprintf("not done in %v: %v", surveyTime, err),
			"there are many streams, or S3 is slow from here; name accounts, regions and log_types to look at fewer")
		return Survey{}
	case err != nil:
		x.fail("tree", tried, err, s.refused(err, setup, toList))
		return Survey{}
	}
	for i, f := range found.Failed {
		if i == named {
			x.warn("tree", tried, fmt.Sprintf("%d more folders could not be listed", len(found.Failed)-i), "")
			break
		}
		x.fail("tree", "listed s3://"+s.Bucket+"/"+f.Prefix, f.Err, s.refused(f.Err, setup, toList))
	}
	if len(found.Streams) == 0 {
		if len(found.Failed) == 0 {
			s.noStreams(x, tried)
		}
		return found
	}
	accounts, places := make(map[string]bool), make(map[string]bool)
	for _, st := range found.Streams {
		accounts[st.ID.Account], places[st.ID.Region] = true, true
	}
	x.ok("tree", tried, fmt.Sprintf("%s: %s in %s", plural(len(found.Streams), "stream"), plural(len(accounts), "account"), plural(len(places), "region")))
	s.newest(x, &found)
	return found
}

// noStreams says why there may be none.
func (s *Source) noStreams(x *part, tried string) {
	var lists int
	look := func(prefix string) listing.Page {
		var page listing.Page
		lists++
		_ = x.step(func(ctx context.Context) (err error) {
			page, err = s.Store.List(ctx, listing.Request{Prefix: prefix, Delimiter: "/"})
			return err
		})
		return page
	}
	here := look(root(s.Prefix))
	if len(here.Prefixes) > 0 {
		// There is an AWSLogs/: what is in it?
		var types []string
		for _, p := range here.Prefixes {
			level := look(p)
			if id := strings.TrimSuffix(strings.TrimPrefix(p, root(s.Prefix)), "/"); cloudtrail.IsOrganization(id) && len(level.Prefixes) > 0 {
				level = look(level.Prefixes[0])
			}
			for _, t := range level.Prefixes {
				t = strings.TrimSuffix(t, "/")
				if t = t[strings.LastIndexByte(t, '/')+1:]; !slices.Contains(types, t) {
					types = append(types, t)
				}
			}
			if lists > 20 {
				break
			}
		}
		switch {
		case len(types) == 1 && types[0] == "CloudTrail-Digest":
			x.fail("tree", tried, errors.New("there are only digest files (CloudTrail-Digest), and no logs"),
				"the trail's logs go elsewhere, or it has logged nothing yet: see the trail's S3 location in the CloudTrail console")
		case !slices.ContainsFunc(types, cloudtrail.IsLogType) && len(types) > 0:
			x.fail("tree", tried, fmt.Errorf("there are logs of other services (%s), and none of CloudTrail", strings.Join(short(types), ", ")),
				"name the bucket and prefix of the trail")
		default:
			x.fail("tree", tried, errors.New("there are folders, and none that the source takes"),
				"compare accounts, exclude_accounts, regions, exclude_regions, log_types and organizations with what is in the bucket: "+strings.Join(short(here.Prefixes), ", "))
		}
		return
	}
	if len(here.Entries) > 0 {
		x.fail("tree", tried, errors.New("there are files and no folders"), "this is no trail's bucket, or its files were moved: CloudTrail writes AWSLogs/<account>/CloudTrail/<region>/…")
		return
	}
	// Is there an AWSLogs/ somewhere else?
	var candidates []string
	var other []string
	if s.Prefix != "" && len(look(root("")).Prefixes) > 0 {
		candidates = append(candidates, `prefix = ""`)
	}
	level := []string{""}
	for depth := 0; depth < 3 && len(candidates) < named && lists < 40; depth++ {
		var next []string
		for _, at := range level {
			for _, p := range look(at).Prefixes {
				if depth == 0 {
					other = append(other, p)
				}
				if strings.HasSuffix(p, "/AWSLogs/") {
					candidates = append(candidates, fmt.Sprintf("prefix = %q", strings.TrimSuffix(p, "/AWSLogs/")))
				} else if p != "AWSLogs/" {
					next = append(next, p)
				}
			}
		}
		level = next[:min(len(next), 10)]
	}
	switch {
	case len(candidates) > 0:
		x.fail("tree", tried, errors.New("there is nothing; there are logs below another prefix"), "set "+strings.Join(candidates, " or "))
	case len(other) > 0:
		x.fail("tree", tried, fmt.Errorf("there is nothing; the bucket holds %s", strings.Join(short(other), ", ")),
			"set prefix to the trail's S3 key prefix, or name the trail's bucket")
	default:
		x.warn("tree", tried, "the bucket is empty", "a new trail writes its first file within about 15 minutes, once something is logged; else see the trail's S3 location in the CloudTrail console")
	}
}

func short(names []string) []string {
	var out []string
	for _, n := range names[:min(len(names), named)] {
		if q := strconv.Quote(n); q != `"`+n+`"` { // it would not look like one name
			n = q
		}
		out = append(out, n)
	}
	if more := len(names) - named; more > 0 {
		out = append(out, fmt.Sprintf("%d more", more))
	}
	return out
}

// newest says how old the newest log file is, and which regions fell silent.
func (s *Source) newest(x *part, found *Survey) {
	const tried = "looked for the newest log file of each account and region"
	var last time.Time
	busy := false
	for _, st := range found.Streams {
		if st.Last.After(last) {
			last = st.Last
		}
		busy = busy || st.Last.IsZero() && st.Objects > 0 // more of it than was looked at
	}
	switch age := found.At.Sub(last).Round(time.Second); {
	case busy:
		x.ok("newest", tried, "files keep coming")
	case last.IsZero():
		x.warn("newest", tried, "no log file came in the last two days", "see in the CloudTrail console whether the trail is logging, and its latest delivery error")
		return
	case age > stale:
		x.warn("newest", tried, fmt.Sprintf("the newest is of %s, %v ago", last.UTC().Format(time.RFC3339), age),
			"see in the CloudTrail console whether the trail is logging, and its latest delivery error")
		return
	default:
		x.ok("newest", tried, fmt.Sprintf("the newest came %v ago", max(age, 0)))
	}
	var quiet []string
	for _, st := range found.Streams {
		if st.ID.LogType == "CloudTrail" && !st.Last.IsZero() && found.At.Sub(st.Last) > silent {
			quiet = append(quiet, fmt.Sprintf("%s (since %s)", st.ID, st.Last.UTC().Format(time.RFC3339)))
		}
	}
	if len(quiet) > 0 {
		x.warn("silent", tried, "quiet for a day, while others are not: "+strings.Join(short(quiet), ", "),
			"see whether something should happen there; a region that was switched off, or a trail that is not multi-region any more, falls silent for good")
	}
}

// read reads the newest log file there is.
func (s *Source) read(x *part, found Survey, setup *aws.Setup) {
	entry, ok := s.find(x, &found)
	if !ok {
		x.skip("get", triedOf["get"], "there is none")
		return
	}
	tried := "read s3://" + s.Bucket + "/" + entry.Key
	var payer string
	err := x.step(func(ctx context.Context) error {
		facts, err := s.Store.Inspect(ctx, entry.Key)
		if err != nil {
			return err
		}
		if facts.RequesterPays {
			payer = "requests are paid for by the account of the credentials (Requester Pays)"
		}
		if facts.KMSKey != "" {
			setup.KMSKeys = []string{facts.KMSKey}
			bucketKey := "without an S3 Bucket Key, so that each GET is paid for at KMS, too"
			if facts.BucketKey {
				bucketKey = "with an S3 Bucket Key"
			}
			x.ok("decrypt", tried, "encrypted with "+facts.KMSKey+", "+bucketKey)
		}
		return nil
	})
	if err != nil {
		s.notRead(x, tried, err, setup)
		return
	}
	if entry.Size > largest {
		x.ok("get", tried, "it may be read; its records were not counted, since it is large")
		return
	}
	var records int
	err = x.step(func(ctx context.Context) (err error) {
		records, err = s.count(ctx, entry)
		return err
	})
	if e, isContent := errors.AsType[*cloudtrail.Error](err); isContent {
		x.warn("get", tried, "it was read, and is no whole log file: "+e.Error(), "the agent parks such a file and goes on; trailpoll parked list shows them")
		return
	}
	if err != nil {
		s.notRead(x, tried, err, setup)
		return
	}
	x.ok("get", tried, plural(records, "record"))
	if payer != "" {
		x.warn("requester-pays", tried, payer, "")
	}
}

func (s *Source) notRead(x *part, tried string, err error, setup *aws.Setup) {
	switch fault.KindOf(err) {
	case fault.Denied:
		x.fail("get", tried, err, s.refused(err, setup, toGet))
	case fault.KMSDenied:
		x.fail("decrypt", tried, err, s.refused(err, setup, toDecrypt))
	case fault.Archived:
		x.fail("archive", tried, err, restore)
	default:
		x.fail("get", tried, err, "")
	}
}

const restore = "restore it in S3, and keep AWSLogs/ out of the lifecycle rule that archives it for as long as the agent may be down, or start is far back"

// archive looks whether what the agent may still have to read is archived.
func (s *Source) archive(x *part, found *Survey) {
	horizon := s.Settings.LateHorizon
	if len(found.Streams) == 0 || horizon <= 0 {
		return
	}
	var all, archived int
	var first string
	for _, st := range found.Streams[:min(len(found.Streams), named)] {
		prefix := cloudtrail.StreamPrefix(s.Prefix, st.ID)
		_ = x.step(func(ctx context.Context) error {
			page, err := s.Store.List(ctx, listing.Request{Prefix: prefix, StartAfter: prefix + cloudtrail.Floor(st.ID, found.At.Add(-horizon))})
			for _, e := range page.Entries {
				all++
				if e.Archived {
					if archived++; first == "" {
						first = e.Key
					}
				}
			}
			return err
		})
	}
	tried := fmt.Sprintf("looked for archived files of the last %s, the late horizon", plural(int(horizon/plan.Day), "day"))
	switch {
	case archived > 0:
		x.warn("archive", tried, fmt.Sprintf("%d of %d are archived, and can't be read: s3://%s/%s …", archived, all, s.Bucket, first), restore)
	case all > 0:
		x.ok("archive", tried, "none of "+plural(all, "file"))
	}
}

// find returns the newest log file of the stream that had one last.
func (s *Source) find(x *part, found *Survey) (entry listing.Entry, ok bool) {
	streams := slices.Clone(found.Streams)
	slices.SortStableFunc(streams, func(a, b plan.Stream) int {
		if x, y := a.Last.IsZero() && a.Objects > 0, b.Last.IsZero() && b.Objects > 0; x != y {
			if x {
				return -1
			}
			return 1
		}
		return b.Last.Compare(a.Last)
	})
	for i := 0; i < len(streams) && i < named && !ok; i++ {
		id := streams[i].ID
		prefix := cloudtrail.StreamPrefix(s.Prefix, id)
		for _, back := range []time.Duration{2 * time.Hour, 2 * plan.Day, 0} {
			r := listing.Request{Prefix: prefix}
			if back > 0 {
				r.StartAfter = prefix + cloudtrail.Floor(id, found.At.Add(-back))
			}
			_ = x.step(func(ctx context.Context) error {
				page, err := s.Store.List(ctx, r)
				for _, e := range page.Entries {
					if _, class := cloudtrail.ParsePosition(id, strings.TrimPrefix(e.Key, prefix)); class == cloudtrail.Log {
						entry, ok = e, true
					}
				}
				return err
			})
			if ok {
				return entry, true
			}
		}
	}
	return entry, ok
}

// count reads an object to its end and returns how many records it has.
func (s *Source) count(ctx context.Context, e listing.Entry) (int, error) {
	body, err := s.Store.Get(ctx, e.Key, e.ETag)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	var inflater cloudtrail.Inflater
	var splitter cloudtrail.Splitter
	inflater.Reset(body, cloudtrail.Limits{MaxRecord: s.MaxRecord, Stored: e.Size})
	splitter.ResetReader(&inflater, s.MaxRecord)
	buf, recs := make([]byte, 0, 64<<10), make([]record.Record, 0, 256)
	for {
		var err error
		if buf, _, err = splitter.Fill(buf[:0], recs[:0]); err != nil {
			if errors.Is(err, io.EOF) {
				return splitter.Records(), nil
			}
			if one, ok := errors.AsType[*cloudtrail.Error](err); ok && one.RecordOnly {
				continue
			}
			return splitter.Records(), err
		}
	}
}

// cost says what a month of listing and reading costs.
func (s *Source) cost(x *part, found Survey) {
	const tried = "reckoned what a month costs, at the list prices of us-east-1"
	if len(found.Streams) == 0 {
		x.skip("cost", tried, "there are no streams")
		return
	}
	source := plan.Source{Name: s.Name, Settings: s.Settings, Streams: found.Streams, DiscoveryLists: found.DiscoveryLists}
	load := source.Load(s.Settings)
	cost := plan.DefaultPrices().Month(load)
	answer := fmt.Sprintf("%.2f USD: %.0f LISTs and %.0f GETs a day; trailpoll plan says more", cost.Total(), load.Lists(), load.Gets)
	if load.Capped {
		x.warn("cost", tried, answer, "max_lists_per_minute allows fewer LISTs than refresh asks for: files are found later")
		return
	}
	x.ok("cost", tried, answer)
}
