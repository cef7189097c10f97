package main

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var long = flag.Bool("long", false, "drive the language server with a real editor, which make test-long installs")

// drive waits for what the server says of a file, asks what may stand at the cursor, has
// the file formatted, and writes all of it down.
const drive = `
local out = {}
vim.cmd("edit " .. vim.env.PROVOST_TEST_FILE)
local buf = vim.api.nvim_get_current_buf()
local attached = vim.wait(20000, function()
  return #vim.lsp.get_active_clients() == 1 and #vim.diagnostic.get(buf) > 0
end, 20)
out.attached = attached
out.filetype = vim.bo[buf].filetype
out.diagnostics = {}
for _, d in ipairs(vim.diagnostic.get(buf)) do
  table.insert(out.diagnostics, { line = d.lnum, message = d.message, severity = d.severity })
end
-- Complete what is typed: "process.executabl" in the condition.
for n, line in ipairs(vim.api.nvim_buf_get_lines(buf, 0, -1, false)) do
  local at = line:find("process.executabl", 1, true)
  if at and line:find("condition") then
    vim.api.nvim_win_set_cursor(0, { n, at - 1 + #"process.executabl" })
  end
end
local answers = vim.lsp.buf_request_sync(buf, "textDocument/completion", vim.lsp.util.make_position_params(0, "utf-16"), 20000)
out.completion = {}
for _, a in pairs(answers or {}) do
  for _, item in ipairs(a.result.items or a.result) do
    table.insert(out.completion, item.label)
  end
end
-- What an author types is judged as he types: mend it, and it is clean.
local text = table.concat(vim.api.nvim_buf_get_lines(buf, 0, -1, false), "\n")
text = text:gsub("process.executabl ", "process.executable ")
vim.api.nvim_buf_set_lines(buf, 0, -1, false, vim.split(text, "\n"))
out.clean = vim.wait(20000, function() return #vim.diagnostic.get(buf) == 0 end, 20)
if vim.lsp.buf.format then vim.lsp.buf.format({ timeout_ms = 20000 }) else vim.lsp.buf.formatting_sync(nil, 20000) end
out.formatted = table.concat(vim.api.nvim_buf_get_lines(buf, 0, -1, false), "\n")
local f = assert(io.open(vim.env.PROVOST_TEST_OUT, "w"))
f:write(vim.json and vim.json.encode(out) or vim.fn.json_encode(out))
f:close()
vim.cmd("qall!")
`

// edited has one fault: there is no field process.executabl.
const edited = `bundle {
  name = "edited"
  version = "1"
  language = 1
}

policy "shells" {
  on = ["process.exec"]
  condition = process.executabl == "/bin/sh"
  action "alert" {
    message = "x"
  }
}
`

// TestNeovim drives the language server with a real editor, set up as the guide says.
func TestNeovim(t *testing.T) {
	if !*long {
		t.Skip("a real editor is driven with -long")
	}
	nvim, err := exec.LookPath("nvim")
	if err != nil {
		t.Fatalf("%v: hack/setup.sh neovim installs it", err)
	}
	page, err := os.ReadFile("../../docs/editors.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```lua\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 2 {
		t.Fatalf("the guide has %d ways to set the editor up, want one for 0.11 and one for before", len(blocks))
	}
	has, err := exec.Command(nvim, "--headless", "-u", "NONE", "+lua io.stdout:write(tostring(vim.lsp.config ~= nil))", "+qall").Output()
	if err != nil {
		t.Fatal(err)
	}
	setup := blocks[0][1]
	if string(has) != "true" {
		setup = blocks[1][1]
	}
	dir := t.TempDir()
	file, out := filepath.Join(dir, "a.policy.hcl"), filepath.Join(dir, "out.json")
	for name, text := range map[string]string{"init.lua": setup, "drive.lua": drive, "a.policy.hcl": edited} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if said, err := exec.Command("go", "build", "-o", filepath.Join(dir, "provost"), ".").CombinedOutput(); err != nil {
		t.Fatalf("build provost: %v\n%s", err, said)
	}
	cmd := exec.CommandContext(t.Context(), nvim, "--headless", "-n", "-i", "NONE", "-u", filepath.Join(dir, "init.lua"), "+luafile "+filepath.Join(dir, "drive.lua"))
	cmd.Env = append(cmd.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_STATE_HOME="+dir, "XDG_CACHE_HOME="+dir,
		"PROVOST_TEST_FILE="+file, "PROVOST_TEST_OUT="+out)
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	var got struct {
		Attached, Clean     bool
		Filetype, Formatted string
		Diagnostics         []struct {
			Line    int
			Message string
		}
		Completion []string
	}
	text, err := os.ReadFile(out)
	if err == nil {
		err = json.Unmarshal(text, &got)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if !got.Attached || got.Filetype != "hcl" || len(got.Diagnostics) != 1 || got.Diagnostics[0].Line != 8 || !strings.Contains(got.Diagnostics[0].Message, `Did you mean "process.executable"?`) {
		t.Errorf("diagnostics: %+v\n%s", got, said)
	}
	if !strings.Contains(strings.Join(got.Completion, "\n"), "process.executable") {
		t.Errorf("completion: %q", got.Completion)
	}
	if !got.Clean {
		t.Error("what was mended is still told")
	}
	if !strings.Contains(got.Formatted, "  name     = \"edited\"\n") || !strings.Contains(got.Formatted, "  on        = [\"process.exec\"]\n") {
		t.Errorf("formatted:\n%s", got.Formatted)
	}
}
