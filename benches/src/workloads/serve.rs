//! A server under load: orders as JSON over HTTP, on an asynchronous runtime of two threads.
//! The connections are pipes in memory, so that the system's network is not what is measured.

use core::convert::Infallible;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use fastrand::Rng;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1 as client;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{DuplexStream, duplex};
use tokio::runtime::Builder;

use super::{Outcome, Setting};

/// Threads of the runtime, clients' and server's together.
const THREADS: usize = 2;

/// Clients, each with a connection and a session of its own.
const CLIENTS: u64 = 64;

/// Requests of each in the full size.
const REQUESTS: usize = 400;

/// Bytes that a connection holds in each direction.
const PIPE_BYTES: usize = 16 << 10;

/// Orders that a session remembers.
const REMEMBERED: usize = 100;

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    number: usize,
    customer: String,
    items: Vec<Item>,
    note: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Item {
    name: String,
    count: u64,
    cents: u64,
}

/// What the server says to it.
#[derive(Debug, Serialize, Deserialize)]
struct Receipt {
    number: usize,
    lines: Vec<String>,
    cents: u64,
    remembered: usize,
}

/// The latest orders of one client.
type Session = Arc<Mutex<VecDeque<Order>>>;

/// Clients send orders, one after the other; the server parses each, remembers it in place of the
/// oldest, and answers with a receipt, which the client parses.
pub(super) fn serve(setting: &mut Setting) -> Result<Outcome> {
    let requests = setting.scale.of(REQUESTS);
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .build()?;
    let sessions: Vec<Session> = (0..CLIENTS).map(|_| Session::default()).collect();
    let checksum = setting.watch.measure(|| {
        runtime.block_on(async {
            let clients: Vec<_> = (0..)
                .zip(&sessions)
                .map(|(seed, session)| {
                    let (near, far) = duplex(PIPE_BYTES);
                    tokio::spawn(listen(far, Arc::clone(session)));
                    tokio::spawn(send(near, seed, requests))
                })
                .collect();
            let mut sum = 0_u64;
            for client in clients {
                sum = sum.wrapping_add(client.await??);
            }
            anyhow::Ok(sum)
        })
    })?;
    Ok(Outcome::new(checksum, (runtime, sessions)))
}

/// Serves one connection until the client closes it.
async fn listen(stream: DuplexStream, session: Session) -> Result<()> {
    let answer = service_fn(|request| answer(request, &session));
    let connection = server::Builder::new().serve_connection(TokioIo::new(stream), answer);
    connection.await.context("the connection of a server")
}

/// The answer to one request.
async fn answer(
    request: Request<Incoming>,
    session: &Session,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let receipt = match request.into_body().collect().await {
        Ok(body) => serde_json::from_slice(&body.to_bytes())
            .and_then(|order| serde_json::to_vec(&accept(order, session))),
        // The client sees that no receipt comes.
        Err(_) => Ok(Vec::new()),
    };
    let status = match receipt {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::BAD_REQUEST,
    };
    let mut response = Response::new(Full::new(Bytes::from(receipt.unwrap_or_default())));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

/// Remembers an order; its receipt.
fn accept(order: Order, session: &Session) -> Receipt {
    let cents = |item: &Item| item.count * item.cents;
    let line = |item: &Item| format!("{} x {}: {} cents", item.count, item.name, cents(item));
    let mut orders = session.lock().unwrap_or_else(PoisonError::into_inner);
    if orders.len() == REMEMBERED {
        orders.pop_front();
    }
    let receipt = Receipt {
        number: order.number,
        lines: order.items.iter().map(line).collect(),
        cents: order.items.iter().map(cents).sum(),
        remembered: orders.len() + 1,
    };
    orders.push_back(order);
    receipt
}

/// Sends `requests` orders; a digest of the receipts.
async fn send(stream: DuplexStream, seed: u64, requests: usize) -> Result<u64> {
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut rng = Rng::with_seed(seed);
    let mut sum = 0_u64;
    for number in 0..requests {
        let body = serde_json::to_vec(&order(&mut rng, number))?;
        let request = Request::post(format!("/orders/{seed}/{number}"))
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, "orders/1")
            .body(Full::new(Bytes::from(body)))?;
        // The connection may still be ending the exchange before.
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let body = response.into_body().collect().await?.to_bytes();
        let receipt: Receipt = serde_json::from_slice(&body)?;
        sum = sum
            .wrapping_mul(31)
            .wrapping_add(receipt.cents + body.len() as u64);
    }
    drop(sender);
    connection.await??;
    Ok(sum)
}

/// An order of one to forty items.
fn order(rng: &mut Rng, number: usize) -> Order {
    let mut text = |least: usize, most: usize| -> String {
        let len = rng.usize(least..=most);
        (0..len).map(|_| rng.lowercase()).collect()
    };
    let customer = text(5, 30);
    let note = text(0, 300);
    let names: Vec<String> = (0..1 + number % 40).map(|_| text(3, 40)).collect();
    let items = names.into_iter().map(|name| Item {
        name,
        count: rng.u64(1..=9),
        cents: rng.u64(1..=99_999),
    });
    Order {
        number,
        customer,
        items: items.collect(),
        note: (note.len() > 150).then_some(note),
    }
}
