package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"strings"
)

// writeTypes writes the types of C that bpf2go has declared, and the constants
// of its enumerations. The rest of what it makes loads the object as it is,
// which would have to be kept beside the packed one for that.
func writeTypes(from, to string) error {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, from, nil, parser.ParseComments)
	if err != nil {
		return fmt.Errorf("parse: %w", err)
	}
	made := map[string]bool{}
	for _, t := range types {
		made["Probe"+camel(t)] = true
	}
	var out bytes.Buffer
	out.WriteString("// Code generated from the BPF sources; DO NOT EDIT.\n//go:build 386 || amd64\n\npackage bpf\n\nimport \"structs\"\n")
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || !declares(g, made) {
			continue
		}
		out.WriteString("\n")
		if err := format.Node(&out, fset, g); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		out.WriteString("\n")
	}
	b, err := format.Source(out.Bytes())
	if err != nil {
		return fmt.Errorf("format: %w", err)
	}
	for t := range made {
		if !bytes.Contains(b, []byte("\ntype "+t+" ")) {
			return fmt.Errorf("type %s is not there", t)
		}
	}
	return os.WriteFile(to, b, 0o644)
}

// camel is how bpf2go names a type.
func camel(name string) string {
	words := strings.Split(name, "_")
	for i, w := range words {
		words[i] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, "")
}

// declares says that a declaration is of one of the types, or of constants that
// have one of them.
func declares(g *ast.GenDecl, made map[string]bool) bool {
	for _, s := range g.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			return made[s.Name.Name]
		case *ast.ValueSpec:
			id, ok := s.Type.(*ast.Ident)
			return g.Tok == token.CONST && ok && made[id.Name]
		}
	}
	return false
}
