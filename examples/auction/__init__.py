"""An auction house: objects, a web app, and a page for its administrators."""
