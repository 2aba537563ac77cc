package main

import (
	"errors"

	"github.com/rs/zerolog"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/filter"
	"github.com/trailpoll/trailpoll/agent/s3source"
)

// judgeFilter says what is wrong with one filter of the configuration.
func judgeFilter(r config.Filter) []config.FilterFlaw {
	_, warnings, err := filter.Compile(filter.Config{Rules: []filter.Rule{filter.Rule(r)}})
	var flaws []config.FilterFlaw
	if problems, ok := errors.AsType[filter.Problems](err); ok {
		for _, p := range problems {
			flaws = append(flaws, config.FilterFlaw{Key: p.Key, Message: p.Message, Remedy: p.Remedy})
		}
	}
	for _, p := range warnings {
		flaws = append(flaws, config.FilterFlaw{Key: p.Key, Message: p.Message, Remedy: p.Remedy, Mild: true})
	}
	return flaws
}

// wireFilter compiles the filters of a source; nil if it has none. The
// configuration was judged, so an error is the program's own.
func wireFilter(s *config.Source) (*filter.Filter, error) {
	if len(s.Filters) == 0 && !s.DropSelf {
		return nil, nil //nolint:nilnil // nil keeps every record, as in agent.SourceConfig
	}
	var conf filter.Config
	for _, r := range s.Filters {
		conf.Rules = append(conf.Rules, filter.Rule(r))
	}
	if s.DropSelf {
		conf.Self = self(&s.Credentials)
	}
	f, _, err := filter.Compile(conf)
	return f, err
}

// self says who the agent is, as far as the configuration tells. A key that is
// read from a file may be another one by now.
func self(c *config.Credentials) *filter.Self {
	s := &filter.Self{Product: s3source.Product}
	if c.Type == string(s3source.Static) && c.Files.AccessKeyID == "" {
		s.AccessKeyID = c.AccessKeyID
	}
	if n := len(c.AssumeRole); n > 0 {
		s.RoleARN = c.AssumeRole[n-1].ARN
	}
	return s
}

// sourceFilter is the filter of a source.
type sourceFilter struct {
	source string
	*filter.Filter
}

// sayFiltered logs what each rule has done.
func sayFiltered(filters []sourceFilter, log zerolog.Logger) {
	for _, f := range filters {
		c := f.Counts()
		if c.Self > 0 {
			log.Info().Str("source", f.source).Int64("records", c.Self).Msg("the agent's own calls were left out")
		}
		for i, r := range c.Rules {
			if r.Matched > 0 {
				log.Info().Str("source", f.source).Int("filter", i+1).Str("action", r.Action).
					Int64("records", r.Matched).Msg("a filter decided")
			}
			if r.Failed > 0 {
				log.Warn().Str("source", f.source).Int("filter", i+1).Int64("records", r.Failed).
					Msg("a filter could not be worked out, and the records were kept")
			}
		}
	}
}
