package api

func (s *Service) alerts(c *call) error {
	all, err := s.Alerts(c.ctx)
	return c.answer(all, err)
}

func (s *Service) testAlert(c *call) error {
	t, err := s.TestAlert(c.ctx, c.r.PathValue("channel"), c.id.String())
	return c.answer(t, err)
}
