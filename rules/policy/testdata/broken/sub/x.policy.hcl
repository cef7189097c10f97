policy "x" {}
