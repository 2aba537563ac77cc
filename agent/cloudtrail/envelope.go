package cloudtrail

import "io"

// begin enters the envelope.
func (s *Splitter) begin() error {
	c, ok := s.win.peek()
	switch {
	case !ok && s.win.err == nil:
		return s.broken(blank, s.win.offset())
	case !ok:
		return s.cut()
	case c == '{':
		s.state = inObject
	case c == '[':
		s.state = inArray
		s.records = true
	case c == 0xEF: // of U+FEFF in UTF-8
		return s.broken(byteOrder, s.win.offset())
	default:
		return s.broken(noEnvelope, s.win.offset())
	}
	s.win.pos++
	s.comma = false
	return nil
}

// member reads a member of the envelope, or its end. Of Records it reads no
// more than the opening bracket.
func (s *Splitter) member() error {
	c, ok := s.win.peek()
	if ok && c == '}' {
		s.win.pos++
		s.state = atEnd
		return nil
	}
	if ok && s.comma {
		if c != ',' {
			return s.broken(syntax, s.win.offset())
		}
		s.win.pos++
		c, ok = s.win.peek()
	}
	switch {
	case !ok:
		return s.cut()
	case c != '"':
		return s.broken(syntax, s.win.offset())
	}
	from, end, err := s.beside()
	if err != nil {
		return err
	}
	isRecords := string(s.win.buf[from:end]) == `"Records"`
	if c, ok = s.win.peek(); ok && c == ':' {
		s.win.pos++
		c, ok = s.win.peek()
	} else if ok {
		return s.broken(syntax, s.win.offset())
	}
	if !ok {
		return s.cut()
	}
	s.records = s.records || isRecords
	if isRecords && c == '[' {
		s.win.pos++
		s.state = inRecords
		s.comma = false
		return nil
	}
	if isRecords && c != 'n' {
		return s.broken(noArray, s.win.offset())
	}
	s.comma = true
	_, _, err = s.beside()
	return err
}

// beside passes over a name or value of the envelope that is no record, and
// returns where in the window it stands.
func (s *Splitter) beside() (from, end int, err error) {
	end, bad := s.whole()
	from = s.win.pos
	switch {
	case bad == short:
		return 0, 0, s.cut()
	case bad == long || bad == sound && end-from > s.max:
		return 0, 0, s.broken(longMember, s.win.offset())
	case bad != sound:
		return 0, 0, s.broken(bad, s.win.base+int64(end))
	}
	s.win.pos = end
	return from, end, nil
}

// more steps to the next record. It returns false when it left the array.
func (s *Splitter) more() (bool, error) {
	c, ok := s.win.peek()
	if ok && c == ']' {
		s.win.pos++
		s.comma = true // before the next member
		if s.state == inArray {
			s.state = atEnd
		} else {
			s.state = inObject
		}
		return false, nil
	}
	if ok && s.comma {
		if c != ',' {
			return false, s.broken(syntax, s.win.offset())
		}
		s.win.pos++
		c, ok = s.win.peek()
	}
	switch {
	case !ok:
		return false, s.cut()
	case kinds[c] == kindOther:
		return false, s.broken(syntax, s.win.offset())
	}
	s.comma = true
	return true, nil
}

// end checks that nothing follows the envelope.
func (s *Splitter) end() error {
	_, ok := s.win.peek()
	switch {
	case ok:
		return s.broken(behindEnvelope, s.win.offset())
	case s.win.err != nil:
		return s.cut()
	case !s.records:
		return s.broken(noRecords, s.win.offset())
	}
	return io.EOF
}
