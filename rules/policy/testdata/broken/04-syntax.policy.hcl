policy "syntax" {
  on = [
