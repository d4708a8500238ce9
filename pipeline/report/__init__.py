"""What a person looks at: tables, heat maps, pages."""
